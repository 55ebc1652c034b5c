/*
 * Copyright (C) nginx-nango authors
 *
 * A piece of somebody else's bytes.  The core is built without nginx, so that
 * it can be tested, fuzzed and used by command line tools alone; this is its
 * ngx_str_t, with the same two members in the same order.
 *
 * A nango_str_t owns nothing, is not terminated by a zero byte and may hold
 * any byte.  An absent string has a NULL data pointer; an empty one has not.
 */

#ifndef _NANGO_STR_H_INCLUDED_
#define _NANGO_STR_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <string.h>


typedef struct {
    size_t                len;
    const unsigned char  *data;
} nango_str_t;


#define nango_string(s)  { sizeof(s) - 1, (const unsigned char *) (s) }
#define nango_null_str   { 0, NULL }


static inline nango_str_t
nango_str(const void *data, size_t len)
{
    nango_str_t  s;

    s.len = len;
    s.data = data;

    return s;
}


static inline int
nango_str_eq(nango_str_t a, nango_str_t b)
{
    return a.len == b.len
           && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}


static inline int
nango_str_is(nango_str_t a, const char *b)
{
    return nango_str_eq(a, nango_str(b, strlen(b)));
}


#endif /* _NANGO_STR_H_INCLUDED_ */
