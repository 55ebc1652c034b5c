/*
 * Copyright (C) nginx-nango authors
 *
 * The scanner over any bytes.  What is JSON is told by a recursive descent
 * here, written for this alone; what a value means, by jansson.
 */


#include "fuzz.h"

#include "nango_json.h"
#include "nango_utf8.h"


typedef struct {
    const unsigned char  *p;
    const unsigned char  *end;
    size_t                depth;
} grammar_t;


static int grammar_value(grammar_t *g);


static void
grammar_space(grammar_t *g)
{
    while (g->p < g->end && *g->p && strchr(" \t\r\n", *g->p)) {
        g->p++;
    }
}


static int
grammar_char(grammar_t *g, const char *any)
{
    if (g->p < g->end && *g->p && strchr(any, *g->p)) {
        g->p++;
        return 1;
    }

    return 0;
}


static size_t
grammar_digits(grammar_t *g, const char *digits, size_t max)
{
    size_t  n;

    for (n = 0; n < max && grammar_char(g, digits); n++) {
        /* void */
    }

    return n;
}


static int
grammar_string(grammar_t *g)
{
    if (!grammar_char(g, "\"")) {
        return 0;
    }

    for ( ;; ) {
        if (g->p == g->end || *g->p < 0x20) {
            return 0;
        }

        if (*g->p == '"') {
            g->p++;
            return 1;
        }

        if (*g->p++ != '\\') {
            continue;
        }

        if (grammar_char(g, "u")) {
            if (grammar_digits(g, "0123456789abcdefABCDEF", 4) != 4) {
                return 0;
            }

        } else if (!grammar_char(g, "\"\\/bfnrt")) {
            return 0;
        }
    }
}


static int
grammar_number(grammar_t *g)
{
    (void) grammar_char(g, "-");

    if (!grammar_char(g, "0") && !grammar_digits(g, "0123456789", SIZE_MAX)) {
        return 0;
    }

    if (grammar_char(g, ".") && !grammar_digits(g, "0123456789", SIZE_MAX)) {
        return 0;
    }

    if (grammar_char(g, "eE")) {
        (void) grammar_char(g, "+-");
        return grammar_digits(g, "0123456789", SIZE_MAX) != 0;
    }

    return 1;
}


static int
grammar_container(grammar_t *g, int object)
{
    const char  *close;

    close = object ? "}" : "]";

    if (++g->depth > NANGO_JSON_MAX_DEPTH) {
        return 0;
    }

    grammar_space(g);

    if (grammar_char(g, close)) {
        g->depth--;
        return 1;
    }

    do {
        if (object) {
            grammar_space(g);

            if (!grammar_string(g)) {
                return 0;
            }

            grammar_space(g);

            if (!grammar_char(g, ":")) {
                return 0;
            }
        }

        if (!grammar_value(g)) {
            return 0;
        }

        grammar_space(g);

    } while (grammar_char(g, ","));

    g->depth--;

    return grammar_char(g, close);
}


static int
grammar_value(grammar_t *g)
{
    size_t              i, len;
    static const char  *words[] = { "true", "false", "null" };

    grammar_space(g);

    if (g->p == g->end) {
        return 0;
    }

    if (grammar_char(g, "{")) {
        return grammar_container(g, 1);
    }

    if (grammar_char(g, "[")) {
        return grammar_container(g, 0);
    }

    if (*g->p == '"') {
        return grammar_string(g);
    }

    for (i = 0; i < 3; i++) {
        len = strlen(words[i]);

        if ((size_t) (g->end - g->p) >= len
            && memcmp(g->p, words[i], len) == 0)
        {
            g->p += len;
            return 1;
        }
    }

    return grammar_number(g);
}


static nango_json_kind_e
grammar_kind(nango_str_t text)
{
    int         rc;
    grammar_t   g;

    g.p = text.data;
    g.end = text.data + text.len;
    g.depth = 0;

    rc = grammar_value(&g);
    grammar_space(&g);

    if (!rc || g.p != g.end) {
        return NANGO_JSON_INVALID;
    }

    g.p = text.data;
    grammar_space(&g);

    return grammar_char(&g, "{") ? NANGO_JSON_OBJECT : NANGO_JSON_OTHER;
}


/* A raw string, decoded by both, and cut everywhere near its end. */

static void
check_string(nango_str_t raw)
{
    size_t                len, size;
    json_t               *json;
    nango_str_t           s, cut;
    json_error_t          error;
    const char           *text;
    unsigned char        *buf;
    nango_json_string_e   rc;

    buf = malloc(raw.len - 1);
    check(buf != NULL);

    rc = nango_json_string(raw, buf, raw.len - 2, &s);

    json = json_loadb((const char *) raw.data, raw.len, JSON_DECODE_ANY,
                      &error);

    if (json == NULL) {
        check(rc == NANGO_JSON_STRING_BAD && s.data == NULL);
        free(buf);
        return;
    }

    check(rc == NANGO_JSON_STRING_OK);
    check(json_is_string(json));

    text = json_string_value(json);
    len = json_string_length(json);

    check(nango_str_eq(s, nango_str(text, len)));

    free(buf);

    for (size = (len > 6) ? len - 6 : 0; size <= len; size++) {
        buf = malloc(size ? size : 1);
        check(buf != NULL);

        rc = nango_json_string(raw, buf, size, &cut);

        check(rc == (size < len ? NANGO_JSON_STRING_CUT
                                : NANGO_JSON_STRING_OK));
        check(cut.len <= size && cut.len + 4 > size);
        check(memcmp(text, cut.data, cut.len) == 0);
        check(nango_utf8_valid(cut));

        free(buf);
    }

    json_decref(json);
}


/* A member's value as jansson has it. */

static void
check_value(nango_str_t raw, json_t *json)
{
    json_t  *own;

    own = nango_json_load(raw);

    if (raw.len > NANGO_JSON_MAX_VALUE) {
        check(own == NULL);
        return;
    }

    check(own != NULL);
    check(json_equal(own, json));
    json_decref(own);

    check(nango_json_is(raw, "true") == json_is_true(json));
    check(nango_json_is(raw, "null") == json_is_null(json));
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int                   rc, extra;
    size_t                i, n;
    json_t               *json;
    nango_str_t           text, name, value, other;
    json_error_t          error;
    nango_json_kind_e     kind;
    nango_json_walk_t     w;
    const unsigned char  *last;
    nango_json_member_t   members[] = {
        { nango_string("type"), nango_null_str },
        { nango_string("tags"), nango_null_str },
        { nango_string("a"), nango_null_str },
        { nango_string(""), nango_null_str }
    };

    text = nango_str(data, size);

    kind = nango_json_members(text, members, 4);

    check(kind == grammar_kind(text));

    extra = nango_json_extra(text, members, 4, &other);

    if (kind != NANGO_JSON_OBJECT) {
        check(extra == -1 && other.data == NULL);

        for (i = 0; i < 4; i++) {
            check(members[i].value.data == NULL);
        }
    }

    /* As what the caller took for a string. */

    if (size >= 2 && data[0] == '"' && data[size - 1] == '"') {
        check_string(text);

    } else {
        check(nango_json_string(text, NULL, 0, &name)
              == NANGO_JSON_STRING_BAD);
        check(name.data == NULL);
    }

    /* Piece by piece. */

    n = 0;
    last = data;

    if (nango_json_walk(&w, text)) {

        while ((rc = nango_json_next(&w, &name, &value)) == 1) {

            if (w.object) {
                check(inside(name, data, size) && name.len >= 2);
                check(name.data >= last);
                check(name.data[0] == '"' && name.data[name.len - 1] == '"');

                last = name.data + name.len;
                check_string(name);

            } else {
                check(name.data == NULL);
            }

            check(inside(value, data, size) && value.len != 0);
            check(value.data >= last);

            last = value.data + value.len;

            check(strchr(" \t\r\n", value.data[0]) == NULL);
            check(strchr(" \t\r\n", last[-1]) == NULL);
            check(grammar_kind(value) != NANGO_JSON_INVALID);

            if (value.data[0] == '"') {
                check_string(value);
            }

            n++;
        }

        check((rc == 0) == (kind != NANGO_JSON_INVALID));

    } else {
        check(kind != NANGO_JSON_OBJECT);
    }

    /* As jansson sees it, which refuses more. */

    json = json_loadb((const char *) data, size, JSON_DECODE_ANY, &error);

    if (json != NULL && kind != NANGO_JSON_INVALID) {
        check(json_is_object(json) == (kind == NANGO_JSON_OBJECT));

        if (json_is_array(json)) {
            check(json_array_size(json) == n);
        }
    }

    if (json != NULL && kind == NANGO_JSON_OBJECT) {
        check(json_object_size(json) <= n);

        for (i = 0, n = 0; i < 4; i++) {
            name = members[i].name;
            value = members[i].value;

            check((value.data != NULL)
                  == (json_object_getn(json, (const char *) name.data,
                                       name.len) != NULL));

            if (value.data != NULL) {
                n++;
                check_value(value,
                            json_object_getn(json, (const char *) name.data,
                                             name.len));
            }
        }

        check(extra == (json_object_size(json) > n));
        check(extra == (other.data != NULL));
        check(inside(other, data, size));
    }

    json_decref(json);

    return 0;
}
