/*
 * Copyright (C) nginx-nango authors
 *
 * The text of a secret, and how the configuration reads one.  The file of the
 * runtime is compiled here as it is, with nginx's own headers; what it calls
 * of nginx is below, and writes messages into a buffer; no byte of a key may
 * be there.
 */


#include "../../src/runtime/ngx_nango_secret.c"

#include "fuzz.h"

#include <ctype.h>
#include <sys/mman.h>


#define VARIABLE  "NANGO_FUZZ_SECRET"


ngx_module_t  ngx_core_module;

static char    message[4096];
static size_t  message_len;

/* What the runtime allocates of a pool, for one input. */
static void   *allocated[65536];
static size_t  nallocated;


void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    void  *p;

    p = malloc(size ? size : 1);
    check(p != NULL);

    check(nallocated < sizeof(allocated) / sizeof(allocated[0]));
    allocated[nallocated++] = p;

    return p;
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return malloc(size);
}


void *
ngx_array_push(ngx_array_t *a)
{
    if (a->nelts == a->nalloc) {
        a->nalloc = a->nalloc ? a->nalloc * 2 : 4;
        a->elts = realloc(a->elts, a->nalloc * a->size);
        check(a->elts != NULL);
    }

    return (u_char *) a->elts + a->size * a->nelts++;
}


ngx_int_t
ngx_conf_full_name(ngx_cycle_t *cycle, ngx_str_t *name, ngx_uint_t prefix)
{
    return NGX_OK;
}


/* The message as it would be logged; the formats that are used, no others. */

void
ngx_conf_log_error(ngx_uint_t level, ngx_conf_t *cf, ngx_err_t err,
    const char *fmt, ...)
{
    va_list     args;
    ngx_str_t  *s;

    va_start(args, fmt);

    while (*fmt) {
        check(message_len < sizeof(message) - 256);

        if (*fmt != '%') {
            message[message_len++] = *fmt++;
            continue;
        }

        check(fmt[1] == 'V');
        fmt += 2;

        s = va_arg(args, ngx_str_t *);
        check(s->len <= 200);

        memcpy(message + message_len, s->data, s->len);
        message_len += s->len;
    }

    va_end(args);
}


/* The next secret, told in another way: -1, 0, 1 as nango_secret_next(). */

static int
plain_next(nango_str_t *text, nango_str_t *secret)
{
    size_t       i;
    nango_str_t  line;

    while (text->len) {

        if (text->len >= 3 && memcmp(text->data, "\xef\xbb\xbf", 3) == 0) {
            (void) take_bytes(text, 3);
        }

        line = take(text, '\n');

        while (line.len && strchr(" \t\r", line.data[line.len - 1])
               && line.data[line.len - 1])
        {
            line.len--;
        }

        while (line.len && strchr(" \t\r", line.data[0]) && line.data[0]) {
            line.data++;
            line.len--;
        }

        if (line.len == 0) {
            continue;
        }

        for (i = 0; i < line.len; i++) {
            if (!isprint(line.data[i])) {
                return -1;
            }
        }

        *secret = line;

        return 1;
    }

    return 0;
}


/* What is logged is known beforehand: no byte of it comes from a key. */

static void
check_message(const char *before, const char *shown, const char *after)
{
    char  expected[512];

    snprintf(expected, sizeof(expected), "%s%s%s", before, shown, after);

    check(nango_str_is(nango_str(message, message_len), expected));
}


/* Reads it as the configuration does, and compares with the keys there are. */

static void
check_read(char *spec, const char *shown, const nango_str_t *keys, size_t n,
    int rc)
{
    char             *rv;
    size_t            i;
    ngx_str_t         secret, *key;
    ngx_conf_t        cf;
    ngx_array_t       array;
    ngx_cycle_t       cycle;
    ngx_core_conf_t   ccf;
    void             *conf_ctx[1];

    memset(&cf, 0, sizeof(cf));
    memset(&cycle, 0, sizeof(cycle));
    memset(&ccf, 0, sizeof(ccf));
    memset(&array, 0, sizeof(array));

    ccf.env.size = sizeof(ngx_str_t);
    array.size = sizeof(ngx_str_t);
    conf_ctx[0] = &ccf;
    cycle.conf_ctx = (void ****) conf_ctx;
    cf.cycle = &cycle;

    secret.data = (u_char *) spec;
    secret.len = strlen(spec);
    message_len = 0;

    rv = ngx_nango_secret_read(&cf, &secret, &array);

    check((rv == NGX_CONF_OK) == (rc == 0 && n != 0));
    check((rv == NGX_CONF_OK) == (message_len == 0));

    if (rv == NGX_CONF_OK) {
        check(array.nelts == n);
        key = array.elts;

        for (i = 0; i < n; i++) {
            check(nango_str_eq(nango_str(key[i].data, key[i].len), keys[i]));
            check(key[i].data[key[i].len] == '\0');
        }
    }

    if (shown == NULL) {
        check_message("a secret must be written as \"file:PATH\", "
                      "\"env:NAME\" or \"data:VALUE\"", "", "");

    } else if (rc != 0) {
        check_message("\"", shown, "\" holds a character that no key of "
                      "Nango's has");

    } else if (n == 0) {
        check_message("\"", shown, "\" holds no key");
    }

    while (nallocated) {
        free(allocated[--nallocated]);
    }

    free(array.elts);
    free(ccf.env.elts);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int                 rc, expected;
    char               *spec;
    size_t              n;
    nango_str_t         whole, rest, plain, secret, other;
    static int          fd = -1;
    static char         path[64];
    static nango_str_t  keys[65536];

    if (size > sizeof(keys) / sizeof(keys[0]) - 1) {
        return 0;
    }

    whole = nango_str(data, size);
    rest = whole;
    plain = whole;

    for (n = 0; ; n++) {
        rc = nango_secret_next(&rest, &secret);
        expected = plain_next(&plain, &other);

        check(rc == expected);
        check(inside(rest, data, size) && rest.data + rest.len == data + size);

        if (rc != 1) {
            break;
        }

        check(inside(secret, data, size) && secret.len != 0);
        check(nango_str_eq(secret, other));
        check(rest.data >= secret.data + secret.len);

        keys[n] = secret;
    }

    /* From a file; LeakSanitizer sees what is not freed. */

    if (fd == -1) {
        fd = memfd_create("secret", 0);
        check(fd != -1 && fchmod(fd, 0600) == 0);
        snprintf(path, sizeof(path), "file:/proc/self/fd/%d", fd);
    }

    check(ftruncate(fd, 0) == 0);
    check(pwrite(fd, data, size, 0) == (ssize_t) size);

    check_read(path, path, keys, n, rc);

    /* As an argument and a variable, which end at a NUL. */

    if (memchr(data, '\0', size) != NULL) {
        return 0;
    }

    spec = malloc(size + 6);
    check(spec != NULL);

    memcpy(spec, "data:", 5);
    memcpy(spec + 5, data, size);
    spec[size + 5] = '\0';

    check_read(spec, "data:...", keys, n, rc);

    check(setenv(VARIABLE, spec + 5, 1) == 0);
    check_read("env:" VARIABLE, "env:" VARIABLE, keys, n, rc);

    /* Forgotten what it is: the text may be the secret itself. */

    if (strncmp(spec + 5, "file:", 5) != 0
        && strncmp(spec + 5, "env:", 4) != 0
        && strncmp(spec + 5, "data:", 5) != 0)
    {
        check_read(spec + 5, NULL, keys, n, -1);
    }

    free(spec);

    return 0;
}
