/*
 * Copyright (C) nginx-nango authors
 *
 * What the tests of the core share: cmocka with what it needs before it,
 * strings with zero bytes in them, and the captures.
 */

#ifndef _CORE_TEST_H_INCLUDED_
#define _CORE_TEST_H_INCLUDED_


#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nango_str.h"


#define CAPTURE_KEY  "1e178f20-544e-4a7a-8f4a-309165e97254"

/* A literal, and a C string, as a nango_str_t. */

#define S(s)  nango_str("" s, sizeof(s) - 1)
#define Z(s)  nango_str(s, strlen(s))

#define assert_str(s, expected)                                               \
    assert_str_at(s, S(expected), __FILE__, __LINE__)
#define assert_absent(s)  assert_null((s).data)


typedef struct {
    nango_str_t           head;
    nango_str_t           body;
    unsigned char        *memory;
} capture_t;


static inline void
assert_str_at(nango_str_t s, nango_str_t expected, const char *file, int line)
{
    if (s.data != NULL && nango_str_eq(s, expected)) {
        return;
    }

    print_error("\"%.*s\" (%s) instead of \"%.*s\"\n",
                (int) s.len, s.data ? (const char *) s.data : "",
                s.data ? "present" : "absent",
                (int) expected.len, (const char *) expected.data);
    _fail(file, line);
}


/*
 * A copy that ends where its memory ends, so that AddressSanitizer and
 * valgrind see a read of one byte too many.
 */
static inline nango_str_t
exact(nango_str_t s)
{
    unsigned char  *p;

    p = malloc(s.len ? s.len : 1);
    assert_non_null(p);

    if (s.len) {
        memcpy(p, s.data, s.len);
    }

    return nango_str(p, s.len);
}


static inline void
exact_free(nango_str_t s)
{
    free((void *) s.data);
}


static inline capture_t
capture(const char *name)
{
    long         size;
    FILE        *f;
    char         path[4096];
    size_t       i, gap;
    capture_t    c;
    const char  *dir;

    dir = getenv("NANGO_CAPTURES");
    snprintf(path, sizeof(path), "%s/%s", dir ? dir : "../captures", name);

    f = fopen(path, "rb");
    if (f == NULL) {
        fail_msg("cannot open %s", path);
    }

    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);

    assert_true(size > 0);
    c.memory = malloc(size);
    assert_non_null(c.memory);
    assert_int_equal(fread(c.memory, 1, size, f), size);
    fclose(f);

    /* replies were recorded with LF, requests with CRLF */

    for (i = 0, gap = 0; i + 1 < (size_t) size; i++) {

        if (c.memory[i] == '\n' && c.memory[i + 1] == '\n') {
            gap = i + 2;
            break;
        }

        if (i + 3 < (size_t) size
            && memcmp(c.memory + i, "\r\n\r\n", 4) == 0)
        {
            gap = i + 4;
            break;
        }
    }

    assert_int_not_equal(gap, 0);

    c.head = nango_str(c.memory, gap);
    c.body = nango_str(c.memory + gap, size - gap);

    /* such a reply may end in the newline of whoever recorded it */

    if (c.memory[gap - 2] == '\n'
        && c.body.len != 0 && c.body.data[c.body.len - 1] == '\n')
    {
        c.body.len--;
    }

    return c;
}


static inline nango_str_t
capture_header(const capture_t *c, const char *name)
{
    const unsigned char  *p, *end, *eol;

    p = c->head.data;
    end = p + c->head.len;

    while (p < end) {
        eol = memchr(p, '\n', end - p);

        if ((size_t) (eol - p) > strlen(name) + 2
            && memcmp(p, name, strlen(name)) == 0
            && p[strlen(name)] == ':')
        {
            p += strlen(name) + 2;
            return nango_str(p, eol - p - (eol[-1] == '\r'));
        }

        p = eol + 1;
    }

    return nango_str(NULL, 0);
}


#endif /* _CORE_TEST_H_INCLUDED_ */
