/* Moves the clock on the wall of one process while it runs: LD_PRELOAD this, and let WALLSHIFT name a file of eight
   bytes, the nanoseconds to add.  CLOCK_MONOTONIC and CLOCK_BOOTTIME stay what they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *shift;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_shift(void)
{
    const char *path = getenv("WALLSHIFT");
    int file = path ? open(path, O_RDONLY) : -1;
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
        shift = page == MAP_FAILED ? NULL : page;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const long long second = 1000000000LL;
    int status = real_clock_gettime(clock, now);
    if (status == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long moved = now->tv_sec * second + now->tv_nsec + *shift;
        now->tv_sec = moved / second;
        now->tv_nsec = moved % second;
    }
    return status;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec moment;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &moment);
    now->tv_sec = moment.tv_sec;
    now->tv_usec = moment.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (result)
        *result = moment.tv_sec;
    return moment.tv_sec;
}
