/*
 * Copyright (C) nginx-nango authors
 *
 * What the fuzz targets share: a check that ends the run, strings, and input
 * that is cut into pieces.  Each target is one file with the function that
 * libFuzzer calls; it returns 0, and whatever is wrong stops it.
 */

#ifndef _FUZZ_H_INCLUDED_
#define _FUZZ_H_INCLUDED_


#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nango_str.h"


/* A literal as a nango_str_t. */
#define S(s)  nango_str("" s, sizeof(s) - 1)

/* As assert(), but always there; __LINE__ tells findings apart. */

#define check(what)                                                           \
    do {                                                                      \
        if (!(what)) {                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Memory that was freed is kept from use for a while, 256 MB of it unless
 * told: so much that pages for it cost more than the rest of a run.
 */

const char *__asan_default_options(void);

const char *
__asan_default_options(void)
{
    return "quarantine_size_mb=8";
}


/* Whether s is absent or lies inside of whole. */

static inline int
inside(nango_str_t s, const void *whole, size_t len)
{
    const unsigned char  *start = whole;

    if (s.data == NULL) {
        return s.len == 0;
    }

    return s.data >= start && s.len <= len
           && (size_t) (s.data - start) <= len - s.len;
}


/* Takes what is before the next c, or all of it, off the input. */

static inline nango_str_t
take(nango_str_t *in, char c)
{
    nango_str_t           s;
    const unsigned char  *p;

    p = in->len ? memchr(in->data, c, in->len) : NULL;
    s = nango_str(in->data, p ? (size_t) (p - in->data) : in->len);

    in->data += s.len + (p != NULL);
    in->len -= s.len + (p != NULL);

    return s;
}


/* Takes a byte, 0 where there is none. */

static inline unsigned
take_byte(nango_str_t *in)
{
    if (in->len == 0) {
        return 0;
    }

    in->len--;

    return *in->data++;
}


/* Takes n bytes, or all that there are. */

static inline nango_str_t
take_bytes(nango_str_t *in, size_t n)
{
    nango_str_t  s;

    s = nango_str(in->data, in->len < n ? in->len : n);

    in->data += s.len;
    in->len -= s.len;

    return s;
}


/*
 * A copy that ends where its memory ends, so that AddressSanitizer sees a read
 * of one byte too many.
 */

static inline nango_str_t
exact(nango_str_t s)
{
    unsigned char  *p;

    p = malloc(s.len ? s.len : 1);
    check(p != NULL);

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


#endif /* _FUZZ_H_INCLUDED_ */
