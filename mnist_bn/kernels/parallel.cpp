// A pool of threads. They wait in it from the first call on; a process that was forked begins anew.
#include "parallel.h"

#ifdef _WIN32  // untried: one thread

extern "C" int set_threads(int) { return 1; }
int workers_for(double) { return 1; }
void run_tasks(int tasks, int, void (*call)(void*, int, int), void* body) {
  for (int task = 0; task < tasks; task++) call(body, task, 0);
}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

namespace {

// Turns of a loop before a thread gives its processor away: some 20 microseconds, as long as Python
// takes between two kernels. It takes longer than that to wake a thread.
constexpr int PATIENCE = 2000;

// Some 20 microseconds of a thread.
constexpr double LEAST_OPERATIONS = 4e5;

struct Job {
  void (*call)(void*, int, int);
  void* body;
  int tasks, workers;
};

Job job;
// The number of the job in the upper half, that of the next task in the lower: a thread that comes
// late takes no task of another job. Between two jobs there is no task.
constexpr uint32_t NO_TASK = 0x7fffffff;
uint64_t next = NO_TASK;
int finished;  // tasks
int wanted = 1, started = 1;
bool is_forked_aware;

// A thread whose processor another process takes keeps all waiting for its task, for milliseconds.
// Then so many jobs are done by one thread, the more, the oftener it happens.
constexpr int FEWEST_ALONE = 16, MOST_ALONE = 4096;
int alone, next_alone = FEWEST_ALONE, undisturbed;

pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;  // held by the caller while a job is done
pthread_mutex_t asleep = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
int sleepers;

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

inline uint32_t job_number(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

// Does tasks of job `number` until none is left.
void work(uint32_t number, int worker) {
  for (;;) {
    uint64_t ticket = __atomic_load_n(&next, __ATOMIC_ACQUIRE);
    Job now = {__atomic_load_n(&job.call, __ATOMIC_ACQUIRE),
               __atomic_load_n(&job.body, __ATOMIC_ACQUIRE),
               __atomic_load_n(&job.tasks, __ATOMIC_ACQUIRE),
               __atomic_load_n(&job.workers, __ATOMIC_ACQUIRE)};
    int task = (int)(uint32_t)ticket;
    if (job_number(ticket) != number || task >= now.tasks || worker >= now.workers) return;
    // It fails if another took the task. It fails as well if any of `now` is of a later job: what
    // was read here was written after NO_TASK.
    if (!__atomic_compare_exchange_n(&next, &ticket, ticket + 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
      continue;
    now.call(now.body, task, worker);
    __atomic_add_fetch(&finished, 1, __ATOMIC_ACQ_REL);
  }
}

void* live(void* argument) {
  int worker = (int)(intptr_t)argument;
  uint32_t seen = 0;
  for (;;) {
    uint32_t number = seen;
    for (int turn = 0; turn < PATIENCE && number == seen; turn++) {
      number = job_number(__atomic_load_n(&next, __ATOMIC_ACQUIRE));
      pause_briefly();
    }
    if (number == seen) {
      pthread_mutex_lock(&asleep);
      __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
      while ((number = job_number(__atomic_load_n(&next, __ATOMIC_SEQ_CST))) == seen)
        pthread_cond_wait(&wake, &asleep);
      __atomic_sub_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
      pthread_mutex_unlock(&asleep);
    }
    seen = number;
    work(number, worker);
  }
  return nullptr;
}

double seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Notes how long the caller worked, and waited for the others.
void note(double worked, double waited) {
  if (waited > worked / 2 + 1e-4) {
    alone = next_alone;
    if (next_alone < MOST_ALONE) next_alone *= 2;
    undisturbed = 0;
  } else if (++undisturbed == 64) {
    if (next_alone > FEWEST_ALONE) next_alone /= 2;
    undisturbed = 0;
  }
}

// In the child of a fork there is only the thread that forked.
void begin_anew() {
  started = 1;
  sleepers = 0;
  busy = PTHREAD_MUTEX_INITIALIZER;
  asleep = PTHREAD_MUTEX_INITIALIZER;
  wake = PTHREAD_COND_INITIALIZER;
}

// Starts what is wanted and not there yet; fewer threads, if the system gives no more.
void start_threads(int wanted) {
  if (!is_forked_aware) is_forked_aware = pthread_atfork(nullptr, nullptr, begin_anew) == 0;
  // Signals are for Python's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (; is_forked_aware && started < wanted; started++) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, live, (void*)(intptr_t)started) != 0) break;
    pthread_detach(thread);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace

// Sets how many threads work from now on; returns how many they are.
extern "C" int set_threads(int threads) {
  threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
  __atomic_store_n(&wanted, threads, __ATOMIC_RELAXED);
  return threads;
}

int workers_for(double operations) {
  return operations < LEAST_OPERATIONS ? 1 : __atomic_load_n(&wanted, __ATOMIC_RELAXED);
}

void run_tasks(int tasks, int workers, void (*call)(void*, int, int), void* body) {
  // One thread is enough, or another thread of Python has the pool.
  bool has_pool = workers > 1 && tasks > 1 && pthread_mutex_trylock(&busy) == 0;
  if (!has_pool || alone > 0) {
    for (int task = 0; task < tasks; task++) call(body, task, 0);
    if (has_pool) {
      alone--;
      pthread_mutex_unlock(&busy);
    }
    return;
  }
  if (started < workers) start_threads(workers);
  double start = seconds();
  uint32_t number = job_number(__atomic_load_n(&next, __ATOMIC_RELAXED));
  __atomic_store_n(&next, (uint64_t)number << 32 | NO_TASK, __ATOMIC_SEQ_CST);
  number++;
  __atomic_store_n(&finished, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&job.call, call, __ATOMIC_RELEASE);
  __atomic_store_n(&job.body, body, __ATOMIC_RELEASE);
  __atomic_store_n(&job.tasks, tasks, __ATOMIC_RELEASE);
  __atomic_store_n(&job.workers, workers, __ATOMIC_RELEASE);
  __atomic_store_n(&next, (uint64_t)number << 32, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST) > 0) {
    pthread_mutex_lock(&asleep);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&asleep);
  }
  work(number, 0);
  double end = seconds();
  for (int turn = 0; __atomic_load_n(&finished, __ATOMIC_ACQUIRE) < tasks; turn++)
    if (turn < PATIENCE)
      pause_briefly();
    else
      sched_yield();
  note(end - start, seconds() - end);
  pthread_mutex_unlock(&busy);
}

#endif
