/*
 * Copyright (C) nginx-nango authors
 *
 * See nango_text.h.  Sizes double, so that a page of many small pieces is
 * copied a few times at most.
 */


#include "nango_text.h"

#include "nango_hash.h"
#include "nango_utf8.h"

#include <stdio.h>
#include <stdlib.h>


#define NANGO_TEXT_SIZE  1024


static unsigned char *nango_text_room(nango_text_t *t, size_t len);


void
nango_text_free(nango_text_t *t)
{
    free(t->data);
    memset(t, 0, sizeof(nango_text_t));
}


/* Where len bytes can be written, which count as added; or NULL. */

static unsigned char *
nango_text_room(nango_text_t *t, size_t len)
{
    size_t          size;
    unsigned char  *p;

    if (t->failed) {
        return NULL;
    }

    if (len > t->size - t->len) {
        size = t->size ? t->size : NANGO_TEXT_SIZE;

        while (size - t->len < len) {
            size *= 2;
        }

        p = realloc(t->data, size);
        if (p == NULL) {
            t->failed = 1;
            return NULL;
        }

        t->data = p;
        t->size = size;
    }

    p = t->data + t->len;
    t->len += len;

    return p;
}


void
nango_text_add(nango_text_t *t, nango_str_t s)
{
    unsigned char  *p;

    if (s.len == 0) {
        return;
    }

    p = nango_text_room(t, s.len);

    if (p != NULL) {
        memcpy(p, s.data, s.len);
    }
}


void
nango_text_string(nango_text_t *t, const char *s)
{
    nango_text_add(t, nango_str(s, strlen(s)));
}


void
nango_text_number(nango_text_t *t, uint64_t n)
{
    unsigned char  digits[20];
    size_t         i;

    i = sizeof(digits);

    do {
        digits[--i] = (unsigned char) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    nango_text_add(t, nango_str(digits + i, sizeof(digits) - i));
}


void
nango_text_hex(nango_text_t *t, const unsigned char *data, size_t len)
{
    unsigned char  *p;

    p = nango_text_room(t, 2 * len);

    if (p != NULL) {
        nango_hex(p, data, len);
    }
}


/*
 * By ourselves: gmtime_r() takes a lock and reads the file of a time zone.
 * Days are counted from a first of March, so that a leap day is a year's last.
 */

void
nango_text_time(nango_text_t *t, uint64_t ms)
{
    char      text[64];
    uint64_t  days, era, year, day, month, seconds;

    if (ms == 0) {
        nango_text_string(t, "null");
        return;
    }

    seconds = ms / 1000 % 86400;

    /* From the first of March of year 0; eras have 400 years. */

    days = ms / 1000 / 86400 + 719468;
    era = days / 146097;
    days %= 146097;

    year = (days - days / 1460 + days / 36524 - days / 146096) / 365;
    day = days - (365 * year + year / 4 - year / 100);
    month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5;

    year += 400 * era + (month >= 10);
    month = (month < 10) ? month + 3 : month - 9;

    (void) snprintf(text, sizeof(text),
                    "\"%04llu-%02u-%02uT%02u:%02u:%02u.%03uZ\"",
                    (unsigned long long) year, (unsigned) month,
                    (unsigned) day + 1, (unsigned) (seconds / 3600),
                    (unsigned) (seconds / 60 % 60), (unsigned) (seconds % 60),
                    (unsigned) (ms % 1000));

    nango_text_string(t, text);
}


void
nango_text_json(nango_text_t *t, nango_str_t s)
{
    char                  escape[8];
    size_t                n;
    const unsigned char  *p, *end, *plain;

    nango_text_string(t, "\"");

    p = s.data;
    end = (s.len != 0) ? p + s.len : p;
    plain = p;

    while (p != end) {
        n = nango_utf8_next(p, end);

        if (n != 0 && *p >= 0x20 && *p != '"' && *p != '\\' && *p != 0x7f) {
            p += n;
            continue;
        }

        nango_text_add(t, nango_str(plain, p - plain));

        if (n == 0) {
            nango_text_string(t, "\xef\xbf\xbd");

        } else if (*p == '"' || *p == '\\') {
            escape[0] = '\\';
            escape[1] = (char) *p;
            escape[2] = '\0';
            nango_text_string(t, escape);

        } else {
            (void) snprintf(escape, sizeof(escape), "\\u%04x", (unsigned) *p);
            nango_text_string(t, escape);
        }

        plain = ++p;
    }

    if (p != plain) {
        nango_text_add(t, nango_str(plain, p - plain));
    }

    nango_text_string(t, "\"");
}


void
nango_text_base64(nango_text_t *t, nango_str_t s)
{
    size_t                i;
    uint32_t              n;
    unsigned char        *p;
    const unsigned char  *q;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789+/";

    nango_text_string(t, "\"");

    p = nango_text_room(t, (s.len + 2) / 3 * 4);

    if (p == NULL) {
        return;
    }

    for (i = 0; i < s.len; i += 3) {
        q = s.data + i;

        n = (uint32_t) q[0] << 16;

        if (s.len - i > 1) {
            n |= (uint32_t) q[1] << 8;
        }

        if (s.len - i > 2) {
            n |= q[2];
        }

        *p++ = (unsigned char) digits[n >> 18];
        *p++ = (unsigned char) digits[n >> 12 & 0x3f];
        *p++ = (s.len - i > 1) ? (unsigned char) digits[n >> 6 & 0x3f] : '=';
        *p++ = (s.len - i > 2) ? (unsigned char) digits[n & 0x3f] : '=';
    }

    nango_text_string(t, "\"");
}
