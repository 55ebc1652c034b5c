/*
 * What an nginx that is built for t/sanitize/run has besides: the options of
 * the sanitizers, so that they hold however it is started, and what is known
 * of nginx itself.  The environment adds to these: the script says there where
 * reports are written to.
 */

#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


int    dlclose(void *handle);

void  *__wrap_ngx_create_pool(size_t size, void *log);
void  *__real_ngx_create_pool(size_t size, void *log);

const char  *__asan_default_options(void);
const char  *__ubsan_default_options(void);
const char  *__lsan_default_options(void);
const char  *__lsan_default_suppressions(void);
const char  *__tsan_default_options(void);
const char  *__tsan_default_suppressions(void);


/*
 * gcc's libubsan, beside its libasan, passes over log_path, and its reports
 * would be in whatever is standard error.
 */

static void __attribute__((constructor))
ubsan_log_path(void)
{
    void        *handle;
    void       (*set)(const char *path);
    const char  *options;

    options = getenv("UBSAN_OPTIONS");

    if (options == NULL || strncmp(options, "log_path=", 9) != 0) {
        return;
    }

    handle = dlopen("libubsan.so.1", RTLD_LAZY|RTLD_NOLOAD);

    if (handle) {
        set = dlsym(handle, "__sanitizer_set_report_path");

        if (set) {
            set(options + 9);
        }
    }
}


/*
 * nginx unloads its modules before it exits.  Whatever looks for leaks at exit
 * would not know the functions of a module by then, nor see what its static
 * variables point at.
 */

int
dlclose(void *handle)
{
    return 0;
}


/*
 * nginx does not join the threads of its pools.  To look for leaks beside a
 * thread that is just ending fails, so they get time for that.  ThreadSanitizer
 * looks for no leaks, and has a thread of its own that never ends.
 */

#ifndef __SANITIZE_THREAD__

static void
await_threads(void)
{
    int   n, i;
    DIR  *dir;

    for (i = 0; i < 200; i++) {

        dir = opendir("/proc/self/task");
        if (dir == NULL) {
            return;
        }

        for (n = 0; readdir(dir); n++) { /* void */ }

        closedir(dir);

        /* with "." and ".." */

        if (n <= 3) {
            return;
        }

        usleep(10000);
    }
}


static void __attribute__((constructor))
await_threads_at_exit(void)
{
    (void) atexit(await_threads);
}

#endif


/* nginx ends without its very first pool when its configuration is wrong. */

static void * volatile  first_pool;


void *
__wrap_ngx_create_pool(size_t size, void *log)
{
    void  *pool;

    pool = __real_ngx_create_pool(size, log);

    if (first_pool == NULL) {
        first_pool = pool;
    }

    return pool;
}


/* A module and nginx both have an ngx_module_names. */

const char *
__asan_default_options(void)
{
    return "detect_odr_violation=0:detect_leaks=1:"
           "detect_stack_use_after_return=1:strict_string_checks=1:"
           "check_initialization_order=1";
}


const char *
__ubsan_default_options(void)
{
    return "print_stacktrace=1";
}


const char *
__lsan_default_options(void)
{
    return "print_suppressions=0";
}


const char *
__lsan_default_suppressions(void)
{
    return

        /* the connections and events of a worker; it ends without freeing */
        "leak:ngx_event_process_init\n"

        /* what regular expressions are compiled with; each start forgets it */
        "leak:ngx_regex_malloc\n";
}


const char *
__tsan_default_options(void)
{
    return "second_deadlock_stack=1";
}


const char *
__tsan_default_suppressions(void)
{
    return

        /*
         * A spinlock is taken by an atomic operation and given back by a plain
         * write; the thread pool's list of what is done is under one.
         */
        "race_top:ngx_spinlock\n"
        "race_top:ngx_thread_pool_handler\n"
        "race_top:ngx_thread_pool_cycle\n"

        /* the handler for all notifications is set anew by each of them */
        "race_top:ngx_epoll_notify_handler\n"

        /* a pool's threads are not joined: a variable says that they ended */
        "race_top:ngx_thread_pool_exit_handler\n"
        "race:ngx_thread_pool_destroy\n"
        "race:ngx_worker_process_exit\n"

        /*
         * Threads log beside the event loop: the time is published without
         * a lock, and a pool's threads, not joined, have read from the log
         * that is freed at exit.
         */
        "race_top:ngx_time_update\n"
        "race:ngx_log_error_core\n"

        /* glibc frees what is local to a thread under a lock of its own */
        "race:dl_deallocate_tls\n";
}
