/*
 * What an nginx that is built for t/sanitize/run has besides: the options of
 * the sanitizers, so that they hold however it is started, and what is known
 * of nginx itself.  The environment adds to these: the script says there where
 * reports are written to.
 */

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>


int  dlclose(void *handle);

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
        "leak:ngx_event_process_init\n";
}


const char *
__tsan_default_options(void)
{
    return "second_deadlock_stack=1";
}


const char *
__tsan_default_suppressions(void)
{
    return "";
}
