/*
 * Copyright (C) nginx-nango authors
 *
 * The one place that says what UTF-8 is: RFC 3629, without overlong forms,
 * surrogates and what lies above U+10FFFF.
 */

#ifndef _NANGO_UTF8_H_INCLUDED_
#define _NANGO_UTF8_H_INCLUDED_


#include "nango_str.h"


/*
 * The length in bytes of the character at p, which must be before end; 0 if
 * there is none, or if it is cut off.
 */
static inline size_t
nango_utf8_next(const unsigned char *p, const unsigned char *end)
{
    size_t         i, len;
    unsigned char  min, max;

    if (p[0] < 0x80) {
        return 1;
    }

    min = 0x80;
    max = 0xbf;

    if (p[0] < 0xc2) {
        return 0;

    } else if (p[0] < 0xe0) {
        len = 2;

    } else if (p[0] < 0xf0) {
        len = 3;

        if (p[0] == 0xe0) {
            min = 0xa0;

        } else if (p[0] == 0xed) {
            max = 0x9f;
        }

    } else if (p[0] < 0xf5) {
        len = 4;

        if (p[0] == 0xf0) {
            min = 0x90;

        } else if (p[0] == 0xf4) {
            max = 0x8f;
        }

    } else {
        return 0;
    }

    if ((size_t) (end - p) < len || p[1] < min || p[1] > max) {
        return 0;
    }

    for (i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }

    return len;
}


static inline int
nango_utf8_valid(nango_str_t s)
{
    size_t                n;
    const unsigned char  *p, *end;

    if (s.len == 0) {
        return 1;
    }

    p = s.data;
    end = p + s.len;

    while (p < end) {
        n = nango_utf8_next(p, end);
        if (n == 0) {
            return 0;
        }

        p += n;
    }

    return 1;
}


#endif /* _NANGO_UTF8_H_INCLUDED_ */
