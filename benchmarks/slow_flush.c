/* Adds one millisecond to every flush to disk: what an ordinary cloud disk takes. Preloaded by a
 * PostgreSQL server whose files lie in memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int fdatasync(int descriptor)
{
    static int (*flush)(int);
    struct timespec pause = {0, 1000000};

    if (!flush)
        flush = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    nanosleep(&pause, NULL);
    return flush(descriptor);
}
