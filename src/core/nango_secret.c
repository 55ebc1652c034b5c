/*
 * Copyright (C) nginx-nango authors
 *
 * Secrets come out of files that people and machines wrote in their own ways.
 * A key that differs by one invisible byte fails every webhook with the same
 * answer as a forged one, so what can be trimmed without doubt is trimmed
 * here, and what cannot be part of a key is refused when it is read.
 */


#include "nango_secret.h"


int
nango_secret_next(nango_str_t *text, nango_str_t *secret)
{
    const unsigned char  *p, *q, *end, *last;

    if (text->len == 0) {
        return 0;
    }

    p = text->data;
    end = p + text->len;

    while (p < end) {

        if (end - p >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) {
            p += 3;
        }

        last = (p < end) ? memchr(p, '\n', end - p) : NULL;

        if (last == NULL) {
            last = end;
        }

        text->data = (last < end) ? last + 1 : end;
        text->len = end - text->data;

        while (p < last && (*p == ' ' || *p == '\t' || *p == '\r')) {
            p++;
        }

        while (last > p
               && (last[-1] == ' ' || last[-1] == '\t' || last[-1] == '\r'))
        {
            last--;
        }

        if (p == last) {
            p = text->data;
            continue;
        }

        for (q = p; q < last; q++) {
            if (*q < 0x20 || *q > 0x7e) {
                return -1;
            }
        }

        *secret = nango_str(p, last - p);

        return 1;
    }

    return 0;
}
