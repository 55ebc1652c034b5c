/*
 * Copyright (C) nginx-nango authors
 *
 * Nango's rules for tags and integration ids, written out by hand rather than
 * as regular expressions: they run for every session and every webhook, on
 * bytes that come from outside, and must take linear time on all of them.
 * Every function here reads its argument at most a few times and keeps
 * nothing.
 */


#include "nango_tags.h"
#include "nango_hash.h"
#include "nango_utf8.h"

#include <string.h>


static int nango_email_valid(nango_str_t s);
static size_t nango_tags_put(char *dst, size_t len, const char *s, size_t n);
static int nango_tags_plain(unsigned char c);


static inline int
nango_is_alpha(unsigned char c)
{
    c |= 0x20;

    return c >= 'a' && c <= 'z';
}


static inline int
nango_is_alnum(unsigned char c)
{
    return (c >= '0' && c <= '9') || nango_is_alpha(c);
}


const char *
nango_tag_name_error(nango_str_t name)
{
    size_t         i;
    unsigned char  c;

    if (name.len == 0 || name.len > NANGO_TAG_NAME_MAX) {
        return "must be 1 to 64 characters long";
    }

    if (!nango_is_alpha(name.data[0])) {
        return "must begin with a letter";
    }

    for (i = 1; i < name.len; i++) {
        c = name.data[i];

        if (!nango_is_alnum(c)
            && c != '_' && c != '-' && c != '.' && c != '/')
        {
            return "must hold only letters, digits, \"_\", \"-\", \".\" "
                   "and \"/\"";
        }
    }

    return NULL;
}


const char *
nango_tag_value_error(nango_str_t name, nango_str_t value)
{
    long  len;

    if (value.len == 0 || value.len > NANGO_TAG_VALUE_BYTES) {
        return "must be 1 to 255 characters long";
    }

    len = nango_utf16_len(value);

    if (len < 0) {
        return "must be UTF-8 without control characters";
    }

    if (len > NANGO_TAG_VALUE_MAX) {
        return "must be 1 to 255 characters long";
    }

    if (nango_str_is(name, "end_user_email") && !nango_email_valid(value)) {
        return "must be an e-mail address";
    }

    return NULL;
}


/*
 * Nango's server 0.71.4 asks z.string().email().min(5) of zod 4.0.5, whose
 * default is the "email" of its v4/core/regexes.  In words: letters, digits
 * and _ ' + - . before the "@", neither beginning nor ending with a dot, nor
 * ending with a quote; then at least one label of letters, digits and
 * hyphens, which does not begin with a hyphen, each followed by a dot; then
 * at least two letters.  No two dots in a row anywhere.  The shortest such
 * address has six characters, so min(5) says nothing more.
 */

static int
nango_email_valid(nango_str_t s)
{
    int                   letters;
    size_t                len, labels;
    unsigned char         c, prev;
    const unsigned char  *p, *end;

    p = s.data;
    end = p + s.len;
    prev = '.';

    for ( /* void */ ; p < end; p++) {
        c = *p;

        if (c == '@') {
            break;
        }

        if (c == '.') {
            if (prev == '.') {
                return 0;
            }

        } else if (!nango_is_alnum(c)
                   && c != '_' && c != '\'' && c != '+' && c != '-')
        {
            return 0;
        }

        prev = c;
    }

    if (p == end || prev == '.' || prev == '\'') {
        return 0;
    }

    p++;
    prev = '.';
    letters = 1;
    len = 0;
    labels = 0;

    for ( /* void */ ; p < end; p++) {
        c = *p;

        if (c == '.') {
            if (prev == '.') {
                return 0;
            }

            labels++;
            letters = 1;
            len = 0;

        } else {
            if ((c >= '0' && c <= '9') || (c == '-' && prev != '.')) {
                letters = 0;

            } else if (!nango_is_alpha(c)) {
                return 0;
            }

            len++;
        }

        prev = c;
    }

    return labels > 0 && letters && len >= 2;
}


int
nango_integration_valid(nango_str_t id)
{
    size_t         i;
    unsigned char  c;

    if (id.len == 0 || id.len > 255) {
        return 0;
    }

    for (i = 0; i < id.len; i++) {
        c = id.data[i];

        if (nango_is_alnum(c)) {
            continue;
        }

        switch (c) {

        case '~':
        case ':':
        case '.':
        case '@':
        case ' ':
        case '_':
        case '-':
            continue;

        default:
            return 0;
        }
    }

    return 1;
}


int
nango_connection_id_valid(nango_str_t id)
{
    long  n;

    n = nango_utf16_len(id);

    return n >= 1 && n <= 255;
}


long
nango_utf16_len(nango_str_t s)
{
    long                  len;
    size_t                n;
    const unsigned char  *p, *end;

    if (s.len == 0) {
        return 0;
    }

    p = s.data;
    end = p + s.len;
    len = 0;

    while (p < end) {

        if (*p < 0x20 || *p == 0x7f) {
            return -1;
        }

        n = nango_utf8_next(p, end);

        if (n == 0) {
            return -1;
        }

        /* what takes four bytes in UTF-8 is a surrogate pair in UTF-16 */

        len += (n == 4) ? 2 : 1;
        p += n;
    }

    return len;
}


size_t
nango_tags_header(const nango_tag_t *tags, size_t ntags, char *dst)
{
    size_t                i, j, len;
    unsigned char         c, code[2];
    const nango_tag_t    *tag;

    len = 0;

    for (i = 0; i < ntags; i++) {
        tag = &tags[i];

        if (i != 0) {
            len = nango_tags_put(dst, len, "; ", 2);
        }

        for (j = 0; j < tag->name.len; j++) {
            c = tag->name.data[j];

            len = nango_tags_put(dst, len, nango_tags_plain(c) || c == '/'
                                           ? (char *) &c : "_", 1);
        }

        len = nango_tags_put(dst, len, "=", 1);

        for (j = 0; j < tag->value.len; j++) {
            c = tag->value.data[j];

            if (nango_tags_plain(c)) {
                len = nango_tags_put(dst, len, (char *) &c, 1);
                continue;
            }

            nango_hex(code, &c, 1);

            len = nango_tags_put(dst, len, "%", 1);
            len = nango_tags_put(dst, len, (char *) code, 2);
        }
    }

    return len;
}


static size_t
nango_tags_put(char *dst, size_t len, const char *s, size_t n)
{
    if (dst != NULL) {
        memcpy(dst + len, s, n);
    }

    return len + n;
}


/* What RFC 3986 calls unreserved. */

static int
nango_tags_plain(unsigned char c)
{
    return nango_is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}
