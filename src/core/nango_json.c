/*
 * Copyright (C) nginx-nango authors
 *
 * The scanner goes once over every body that Nango sends, up to 75 MB of it,
 * before anybody knows whether it is of use.  Hence: eight bytes at a time
 * inside of strings, a bit for each open container instead of recursion, no
 * allocation.
 *
 * It accepts what JSON.parse() accepts, but for the limit of depth, since
 * JSON.parse() is what the senders and most receivers of these bodies use:
 * a byte order mark is refused, lone surrogates and numbers of any size are
 * not.
 */


#include "nango_json.h"
#include "nango_utf8.h"


#define NANGO_JSON_ONES  UINT64_C(0x0101010101010101)
#define NANGO_JSON_HIGH  UINT64_C(0x8080808080808080)


static const unsigned char *nango_json_value(nango_json_walk_t *w,
    const unsigned char *p, size_t base);
static const unsigned char *nango_json_name(const unsigned char *p,
    const unsigned char *end, nango_str_t *name);
static const unsigned char *nango_json_quoted(const unsigned char *p,
    const unsigned char *end);
static const unsigned char *nango_json_number(const unsigned char *p,
    const unsigned char *end);
static const unsigned char *nango_json_literal(const unsigned char *p,
    const unsigned char *end, const char *literal, size_t len);
static int nango_json_name_is(nango_str_t raw, int escaped, nango_str_t name);
static const unsigned char *nango_json_escape(const unsigned char *p,
    const unsigned char *end, uint32_t *ch);
static const unsigned char *nango_json_hex4(const unsigned char *p,
    const unsigned char *end, uint32_t *ch);
static size_t nango_json_encode(unsigned char *dst, uint32_t ch);


static inline const unsigned char *
nango_json_space(const unsigned char *p, const unsigned char *end)
{
    while (p < end
           && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    {
        p++;
    }

    return p;
}


static inline int
nango_json_digit(const unsigned char *p, const unsigned char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}


nango_json_kind_e
nango_json_members(nango_str_t text, nango_json_member_t *members, size_t n)
{
    int                   rc, escaped;
    size_t                i;
    nango_str_t           name, value;
    nango_json_walk_t     w;
    const unsigned char  *p;

    for (i = 0; i < n; i++) {
        members[i].value = nango_str(NULL, 0);
    }

    if (!nango_json_walk(&w, text) || !w.object) {

        if (text.len == 0) {
            return NANGO_JSON_INVALID;
        }

        w.end = text.data + text.len;
        p = nango_json_value(&w, text.data, 0);

        if (p == NULL || nango_json_space(p, w.end) != w.end) {
            return NANGO_JSON_INVALID;
        }

        return NANGO_JSON_OTHER;
    }

    while ((rc = nango_json_next(&w, &name, &value)) == 1) {

        escaped = (memchr(name.data, '\\', name.len) != NULL);

        for (i = 0; i < n; i++) {
            if (nango_json_name_is(name, escaped, members[i].name)) {
                members[i].value = value;
            }
        }
    }

    if (rc == 0) {
        return NANGO_JSON_OBJECT;
    }

    for (i = 0; i < n; i++) {
        members[i].value = nango_str(NULL, 0);
    }

    return NANGO_JSON_INVALID;
}


int
nango_json_extra(nango_str_t text, const nango_json_member_t *members,
    size_t n, nango_str_t *extra)
{
    int                rc, found, escaped;
    size_t             i;
    nango_str_t        name, value, first;
    nango_json_walk_t  w;

    if (extra != NULL) {
        *extra = nango_str(NULL, 0);
    }

    if (!nango_json_walk(&w, text) || !w.object) {
        return -1;
    }

    found = 0;
    first = nango_str(NULL, 0);

    while ((rc = nango_json_next(&w, &name, &value)) == 1) {

        if (found) {
            continue;
        }

        escaped = (memchr(name.data, '\\', name.len) != NULL);

        for (i = 0; i < n; i++) {
            if (nango_json_name_is(name, escaped, members[i].name)) {
                break;
            }
        }

        if (i == n) {
            found = 1;
            first = name;
        }
    }

    if (rc != 0) {
        return -1;
    }

    if (extra != NULL) {
        *extra = first;
    }

    return found;
}


int
nango_json_walk(nango_json_walk_t *w, nango_str_t text)
{
    if (text.len == 0) {
        return 0;
    }

    w->end = text.data + text.len;
    w->pos = nango_json_space(text.data, w->end);
    w->first = 1;

    if (w->pos == w->end || (*w->pos != '{' && *w->pos != '[')) {
        return 0;
    }

    w->object = (*w->pos++ == '{');

    return 1;
}


int
nango_json_next(nango_json_walk_t *w, nango_str_t *name, nango_str_t *value)
{
    const unsigned char  *p, *end, *start;

    end = w->end;
    p = nango_json_space(w->pos, end);

    if (p == end) {
        return -1;
    }

    if (*p == (w->object ? '}' : ']')) {
        return nango_json_space(p + 1, end) == end ? 0 : -1;
    }

    if (!w->first) {
        if (*p != ',') {
            return -1;
        }

        p = nango_json_space(p + 1, end);
    }

    w->first = 0;
    *name = nango_str(NULL, 0);

    if (w->object) {
        p = nango_json_name(p, end, name);

        if (p == NULL) {
            return -1;
        }
    }

    start = p;
    p = nango_json_value(w, p, 1);

    if (p == NULL) {
        return -1;
    }

    *value = nango_str(start, p - start);
    w->pos = p;

    return 1;
}


/*
 * Returns where the value that begins at p, after white space, ends; NULL if
 * there is none.  base is the number of containers around it.
 */

static const unsigned char *
nango_json_value(nango_json_walk_t *w, const unsigned char *p, size_t base)
{
    size_t                depth;
    uint64_t              bit;
    nango_str_t           name;
    const unsigned char  *end;

    end = w->end;
    depth = base;

    for ( ;; ) {

        p = nango_json_space(p, end);

        if (p == end) {
            return NULL;
        }

        switch (*p) {

        case '"':
            p = nango_json_quoted(p, end);
            break;

        case '{':
        case '[':
            if (depth == NANGO_JSON_MAX_DEPTH) {
                return NULL;
            }

            /* the bit of a level is set for an object */

            bit = UINT64_C(1) << (depth % 64);

            if (depth == base || depth % 64 == 0) {

                /* lest a word be changed that never had a value */

                w->stack[depth / 64] = 0;
            }

            if (*p == '{') {
                w->stack[depth / 64] |= bit;

            } else {
                w->stack[depth / 64] &= ~bit;
            }

            depth++;
            p = nango_json_space(p + 1, end);

            if (p == end) {
                return NULL;
            }

            if (*p == ((w->stack[(depth - 1) / 64] & bit) ? '}' : ']')) {
                break;
            }

            if (w->stack[(depth - 1) / 64] & bit) {
                p = nango_json_name(p, end, &name);

                if (p == NULL) {
                    return NULL;
                }
            }

            continue;

        case 't':
            p = nango_json_literal(p, end, "true", 4);
            break;

        case 'f':
            p = nango_json_literal(p, end, "false", 5);
            break;

        case 'n':
            p = nango_json_literal(p, end, "null", 4);
            break;

        default:
            p = nango_json_number(p, end);
        }

        if (p == NULL) {
            return NULL;
        }

        /* a value has ended here, or a container is empty and ends here */

        for ( ;; ) {

            if (depth == base) {
                return p;
            }

            p = nango_json_space(p, end);

            if (p == end) {
                return NULL;
            }

            bit = w->stack[(depth - 1) / 64] >> ((depth - 1) % 64) & 1;

            if (*p == ',') {
                p++;

                if (bit) {
                    p = nango_json_name(nango_json_space(p, end), end, &name);

                    if (p == NULL) {
                        return NULL;
                    }
                }

                break;
            }

            if (*p != (bit ? '}' : ']')) {
                return NULL;
            }

            p++;
            depth--;
        }
    }
}


/* From a member's name to its value. */

static const unsigned char *
nango_json_name(const unsigned char *p, const unsigned char *end,
    nango_str_t *name)
{
    const unsigned char  *start;

    if (p == end || *p != '"') {
        return NULL;
    }

    start = p;
    p = nango_json_quoted(p, end);

    if (p == NULL) {
        return NULL;
    }

    *name = nango_str(start, p - start);
    p = nango_json_space(p, end);

    if (p == end || *p != ':') {
        return NULL;
    }

    return nango_json_space(p + 1, end);
}


/* Whether none of the eight bytes ends a string, escapes or is refused. */

static inline int
nango_json_plain8(const unsigned char *p)
{
    uint64_t  w, low, quote, slash;

    memcpy(&w, p, 8);

    low = (w - NANGO_JSON_ONES * 0x20) & ~w;
    quote = w ^ (NANGO_JSON_ONES * '"');
    quote = (quote - NANGO_JSON_ONES) & ~quote;
    slash = w ^ (NANGO_JSON_ONES * '\\');
    slash = (slash - NANGO_JSON_ONES) & ~slash;

    return ((low | quote | slash) & NANGO_JSON_HIGH) == 0;
}


static const unsigned char *
nango_json_quoted(const unsigned char *p, const unsigned char *end)
{
    uint32_t       ch;
    unsigned char  c;

    p++;

    for ( ;; ) {

        while (end - p >= 8 && nango_json_plain8(p)) {
            p += 8;
        }

        do {
            if (p == end) {
                return NULL;
            }

            c = *p++;

            if (c == '"') {
                return p;
            }

            if (c < 0x20) {
                return NULL;
            }

        } while (c != '\\');

        if (p == end) {
            return NULL;
        }

        switch (*p++) {

        case '"':
        case '\\':
        case '/':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't':
            break;

        case 'u':
            p = nango_json_hex4(p, end, &ch);

            if (p == NULL) {
                return NULL;
            }

            break;

        default:
            return NULL;
        }
    }
}


static const unsigned char *
nango_json_number(const unsigned char *p, const unsigned char *end)
{
    if (p < end && *p == '-') {
        p++;
    }

    if (!nango_json_digit(p, end)) {
        return NULL;
    }

    if (*p++ != '0') {
        while (nango_json_digit(p, end)) {
            p++;
        }
    }

    if (p < end && *p == '.') {
        p++;

        if (!nango_json_digit(p, end)) {
            return NULL;
        }

        while (nango_json_digit(p, end)) {
            p++;
        }
    }

    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;

        if (p < end && (*p == '+' || *p == '-')) {
            p++;
        }

        if (!nango_json_digit(p, end)) {
            return NULL;
        }

        while (nango_json_digit(p, end)) {
            p++;
        }
    }

    return p;
}


static const unsigned char *
nango_json_literal(const unsigned char *p, const unsigned char *end,
    const char *literal, size_t len)
{
    if ((size_t) (end - p) < len || memcmp(p, literal, len) != 0) {
        return NULL;
    }

    return p + len;
}


/* Whether a raw name, in its quotes, is this one. */

static int
nango_json_name_is(nango_str_t raw, int escaped, nango_str_t name)
{
    size_t                n, left;
    uint32_t              ch;
    unsigned char         buf[4];
    const unsigned char  *p, *end, *q;

    if (!escaped) {
        return raw.len - 2 == name.len
               && (name.len == 0
                   || memcmp(raw.data + 1, name.data, name.len) == 0);
    }

    p = raw.data + 1;
    end = raw.data + raw.len - 1;
    q = name.data;
    left = name.len;

    while (p < end) {

        if (*p == '\\') {

            /* a lone surrogate makes bytes that no name in UTF-8 has */

            p = nango_json_escape(p, end, &ch);

            if (p == NULL) {
                return 0;
            }

            n = nango_json_encode(buf, ch);

        } else {
            buf[0] = *p++;
            n = 1;
        }

        if (n > left || memcmp(q, buf, n) != 0) {
            return 0;
        }

        q += n;
        left -= n;
    }

    return left == 0;
}


nango_json_string_e
nango_json_string(nango_str_t value, unsigned char *dst, size_t size,
    nango_str_t *s)
{
    int                   cut;
    size_t                n, room;
    uint32_t              ch;
    unsigned char        *d, buf[4];
    const unsigned char  *p, *end, *src;

    *s = nango_str(NULL, 0);

    if (value.len < 2
        || value.data[0] != '"' || value.data[value.len - 1] != '"')
    {
        return NANGO_JSON_STRING_BAD;
    }

    p = value.data + 1;
    end = value.data + value.len - 1;
    d = dst;
    room = size;
    cut = 0;

    while (p < end) {

        src = p;

        if (*p == '\\') {
            p = nango_json_escape(p, end, &ch);

            if (p == NULL || ch == 0 || (ch >= 0xd800 && ch <= 0xdfff)) {
                return NANGO_JSON_STRING_BAD;
            }

            n = nango_json_encode(buf, ch);
            src = buf;

        } else if (*p < 0x80) {

            if (*p < 0x20 || *p == '"') {
                return NANGO_JSON_STRING_BAD;
            }

            n = 1;
            p++;

        } else {
            n = nango_utf8_next(p, end);

            if (n == 0) {
                return NANGO_JSON_STRING_BAD;
            }

            p += n;
        }

        if (room < n) {
            cut = 1;
            room = 0;
            continue;
        }

        room -= n;

        while (n--) {
            *d++ = *src++;
        }
    }

    *s = nango_str(dst, d - dst);

    return cut ? NANGO_JSON_STRING_CUT : NANGO_JSON_STRING_OK;
}


/*
 * Reads the escape at p, both halves of a surrogate pair at once.  A lone
 * surrogate is returned as it is.
 */

static const unsigned char *
nango_json_escape(const unsigned char *p, const unsigned char *end,
    uint32_t *ch)
{
    uint32_t              low;
    const unsigned char  *q;

    if (end - p < 2) {
        return NULL;
    }

    p++;

    switch (*p++) {

    case '"':
        *ch = '"';
        return p;

    case '\\':
        *ch = '\\';
        return p;

    case '/':
        *ch = '/';
        return p;

    case 'b':
        *ch = '\b';
        return p;

    case 'f':
        *ch = '\f';
        return p;

    case 'n':
        *ch = '\n';
        return p;

    case 'r':
        *ch = '\r';
        return p;

    case 't':
        *ch = '\t';
        return p;

    case 'u':
        break;

    default:
        return NULL;
    }

    p = nango_json_hex4(p, end, ch);

    if (p == NULL || *ch < 0xd800 || *ch > 0xdbff
        || end - p < 6 || p[0] != '\\' || p[1] != 'u')
    {
        return p;
    }

    q = nango_json_hex4(p + 2, end, &low);

    if (q == NULL || low < 0xdc00 || low > 0xdfff) {
        return p;
    }

    *ch = 0x10000 + ((*ch - 0xd800) << 10) + (low - 0xdc00);

    return q;
}


static const unsigned char *
nango_json_hex4(const unsigned char *p, const unsigned char *end,
    uint32_t *ch)
{
    int            i;
    uint32_t       n;
    unsigned char  c;

    if (end - p < 4) {
        return NULL;
    }

    n = 0;

    for (i = 0; i < 4; i++) {
        c = *p++;

        if (c >= '0' && c <= '9') {
            n = n << 4 | (uint32_t) (c - '0');
            continue;
        }

        c |= 0x20;

        if (c < 'a' || c > 'f') {
            return NULL;
        }

        n = n << 4 | (uint32_t) (c - 'a' + 10);
    }

    *ch = n;

    return p;
}


static size_t
nango_json_encode(unsigned char *dst, uint32_t ch)
{
    if (ch < 0x80) {
        dst[0] = (unsigned char) ch;
        return 1;
    }

    if (ch < 0x800) {
        dst[0] = (unsigned char) (0xc0 | ch >> 6);
        dst[1] = (unsigned char) (0x80 | (ch & 0x3f));
        return 2;
    }

    if (ch < 0x10000) {
        dst[0] = (unsigned char) (0xe0 | ch >> 12);
        dst[1] = (unsigned char) (0x80 | (ch >> 6 & 0x3f));
        dst[2] = (unsigned char) (0x80 | (ch & 0x3f));
        return 3;
    }

    dst[0] = (unsigned char) (0xf0 | ch >> 18);
    dst[1] = (unsigned char) (0x80 | (ch >> 12 & 0x3f));
    dst[2] = (unsigned char) (0x80 | (ch >> 6 & 0x3f));
    dst[3] = (unsigned char) (0x80 | (ch & 0x3f));

    return 4;
}


json_t *
nango_json_load(nango_str_t value)
{
    json_error_t  error;

    if (value.len == 0 || value.len > NANGO_JSON_MAX_VALUE) {
        return NULL;
    }

    return json_loadb((const char *) value.data, value.len, JSON_DECODE_ANY,
                      &error);
}


int
nango_json_is(nango_str_t value, const char *literal)
{
    return nango_str_is(value, literal);
}
