/*
 * Copyright (C) nginx-nango authors
 *
 * The verdicts of the tables were compared with JSON.parse() of Node 20,
 * except where the comment says otherwise.
 */

#include "core_test.h"

#include "nango_json.h"


static nango_json_kind_e
kind_of(nango_str_t text)
{
    nango_str_t          copy;
    nango_json_kind_e    kind;
    nango_json_member_t  m = { nango_string("a"), nango_null_str };

    copy = exact(text);
    kind = nango_json_members(copy, &m, 1);

    if (kind != NANGO_JSON_OBJECT) {
        assert_absent(m.value);
    }

    exact_free(copy);

    return kind;
}


/* The value of "a" in text; nango_null_str if absent. */

static nango_str_t
member_a(nango_str_t text)
{
    nango_json_member_t  m = { nango_string("a"), nango_string("stale") };

    assert_int_equal(nango_json_members(text, &m, 1), NANGO_JSON_OBJECT);

    return m.value;
}


static void
check(const nango_str_t *table, size_t n, nango_json_kind_e kind)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (kind_of(table[i]) != kind) {
            fail_msg("entry %zu: %.*s", i, (int) table[i].len,
                     (const char *) table[i].data);
        }
    }
}

#define check(table, kind)                                                    \
    (check)(table, sizeof(table) / sizeof(table[0]), kind)


static void
objects_are_objects(void **state)
{
    static const nango_str_t  table[] = {
        nango_string("{}"),
        nango_string(" \t\r\n{ \t\r\n} \t\r\n"),
        nango_string("{\"a\":1}"),
        nango_string("{ \"a\" : 1 , \"b\" : [ ] }"),
        nango_string("{\"\":{}}"),
        nango_string("{\"a\":{\"a\":{\"a\":[[],{},[{}],[[]]]}}}"),
        nango_string("{\"a\":1,\"a\":2}"),
        nango_string("{\"a\":\"\\ud800\"}"),
        nango_string("{\"\\ud800\":\"\\u0000\"}"),
        nango_string("{\"a\":123456789012345678901234567890}"),
        nango_string("{\"a\":1e999999}"),
        nango_string("{\"a\":\"\xff\xc0\x80\"}"),
        nango_string("{\"a\":\"\x7f\"}"),
        nango_string("{\"a\":true,\"b\":false,\"c\":null}")
    };

    check(table, NANGO_JSON_OBJECT);
}


static void
other_values_are_json(void **state)
{
    static const nango_str_t  table[] = {
        nango_string("null"), nango_string("true"), nango_string("false"),
        nango_string(" null\n"), nango_string("[]"), nango_string("[ ]"),
        nango_string("[1,2,3]"), nango_string("[[],[]]"),
        nango_string("[{\"a\":1},{\"a\":2}]"),
        nango_string("\"\""), nango_string("\"abc\""),
        nango_string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
        nango_string("\"\\u0000\\uD834\\uDD1E\\udd1e\\uABCD\\uabcd\""),
        nango_string("\"\xf0\x9f\x98\x80\""),
        nango_string("\"1234567\\\"\""), nango_string("\"12345678\\\"\""),
        nango_string("\"123456789012345\\u0041\""),
        nango_string("\"\xe2\x80\xa8\""),       /* U+2028 */
        nango_string("0"), nango_string("-0"), nango_string("1"),
        nango_string("-1"), nango_string("10"), nango_string("0.0"),
        nango_string("0.10"), nango_string("1e1"), nango_string("1E1"),
        nango_string("1e+1"), nango_string("1e-1"), nango_string("0e0"),
        nango_string("1.5e00"), nango_string("-0.0e-0"),
        nango_string("1e400"), nango_string("-1e400"),
        nango_string("99999999999999999999999999999999999999999999")
    };

    check(table, NANGO_JSON_OTHER);
}


static void
no_json_is_refused(void **state)
{
    static const nango_str_t  table[] = {
        nango_string(""), nango_string(" "), nango_string("\n"),
        nango_string("x"), nango_string("{"), nango_string("}"),
        nango_string("["), nango_string("]"), nango_string("{]"),
        nango_string("[}"), nango_string("{}{}"), nango_string("{} x"),
        nango_string("{},"), nango_string("[]]"), nango_string("1 2"),
        nango_string("null null"), nango_string("nullx"),
        nango_string("nul"), nango_string("Null"), nango_string("tru"),
        nango_string("True"), nango_string("truetrue"), nango_string("fals"),
        nango_string("NaN"), nango_string("Infinity"),
        nango_string("-Infinity"), nango_string("undefined"),

        nango_string("{\"a\"}"), nango_string("{\"a\":}"),
        nango_string("{\"a\" 1}"), nango_string("{\"a\":1,}"),
        nango_string("{,}"), nango_string("{,\"a\":1}"),
        nango_string("{\"a\":1 \"b\":2}"), nango_string("{\"a\":1,,\"b\":2}"),
        nango_string("{a:1}"), nango_string("{'a':1}"),
        nango_string("{1:1}"), nango_string("{null:1}"),
        nango_string("{\"a\":1"), nango_string("{\"a\":"),
        nango_string("{\"a\""), nango_string("{\"a"), nango_string("{\""),
        nango_string("{\"a\":1]"), nango_string("{\"a\"::1}"),
        nango_string("{[]:1}"), nango_string("{\"a\",\"b\"}"),

        nango_string("[,]"), nango_string("[1,]"), nango_string("[,1]"),
        nango_string("[1 2]"), nango_string("[1,,2]"), nango_string("[1"),
        nango_string("[1,"), nango_string("[1}"), nango_string("[\"a\":1]"),
        nango_string("[[]"), nango_string("[{}"), nango_string("[{]}"),
        nango_string("[{\"a\":[}]]"), nango_string("[{\"a\":1,}]"),
        nango_string("[{\"a\":1,2}]"), nango_string("[{\"a\":1]]"),

        nango_string("-"), nango_string("+1"), nango_string("01"),
        nango_string("-01"), nango_string("00"), nango_string("1."),
        nango_string(".1"), nango_string("-.1"), nango_string("1.e1"),
        nango_string("1e"), nango_string("1e+"), nango_string("1e-"),
        nango_string("1e1.5"), nango_string("1ee1"), nango_string("0x10"),
        nango_string("1_000"), nango_string("1.2.3"), nango_string("--1"),
        nango_string("- 1"), nango_string("1 e1"), nango_string("0b1"),
        nango_string("1n"), nango_string("-a"), nango_string("[-]"),

        nango_string("\""), nango_string("\"a"), nango_string("'a'"),
        nango_string("\"\\\""), nango_string("\"\\"),
        nango_string("\"\\a\""), nango_string("\"\\x41\""),
        nango_string("\"\\'\""), nango_string("\"\\0\""),
        nango_string("\"\\u\""), nango_string("\"\\u1\""),
        nango_string("\"\\u12\""), nango_string("\"\\u123\""),
        nango_string("\"\\u123g\""), nango_string("\"\\u 123\""),
        nango_string("\"\\u+123\""), nango_string("\"\\U0041\""),
        nango_string("\"\\u00"), nango_string("\"\\u004"),
        nango_string("\"\\u123/\""), nango_string("\"\\u123:\""),
        nango_string("\"\\u123@\""), nango_string("\"\\u123`\""),
        nango_string("\"\\u12\x10" "3\""),
        nango_string("\"\\ud800\\\""),
        nango_string("\"\n\""), nango_string("\"\t\""),
        nango_string("\"\r\""), nango_string("\"\x1f\""),
        nango_string("\"\x01\""), nango_string("\"\0\""),
        nango_string("\"12345678\n\""), nango_string("\"1234567\n\""),
        nango_string("\"12345678901234\x1f\""),
        nango_string("\"\"\""), nango_string("\"a\"b\""),

        nango_string("\0"), nango_string("{}\0"), nango_string("\0{}"),
        nango_string("{\0}"), nango_string("\xef\xbb\xbf{}"),
        nango_string("{}\xef\xbb\xbf"), nango_string("\xff\xfe{\0}\0"),
        nango_string("\v{}"), nango_string("\f{}"), nango_string("\xa0{}"),
        nango_string("\xc2\xa0{}"), nango_string("\xe2\x80\xa8{}"),
        nango_string("/**/{}"), nango_string("{}//"), nango_string("#{}"),
        nango_string("{\"a\":1}\\"), nango_string("\\u007b}"),
        nango_string("a=b&c=d"), nango_string("<xml/>")
    };

    check(table, NANGO_JSON_INVALID);
    assert_int_equal(kind_of(nango_str(NULL, 0)), NANGO_JSON_INVALID);
}


/* Each beginning of a text that has all there is. */

static void
any_cut_is_refused(void **state)
{
    size_t       i;
    nango_str_t  text;

    text = S("{\"a\":[1,-2.5e+3,true,false,null,\"x\\u0041\\n\",{}],"
             "\"b\":{\"c\":[[],{\"d\":\"\"}]} }");

    assert_int_equal(kind_of(text), NANGO_JSON_OBJECT);

    for (i = 0; i < text.len; i++) {
        assert_int_equal(kind_of(nango_str(text.data, i)),
                         NANGO_JSON_INVALID);
    }
}


/*
 * In each place of a word of eight bytes, and in the bytes after the last.  A
 * quote ends the string too early there; a backslash makes no escape with an
 * "x", or takes the closing quote.
 */

static void
special_bytes_are_seen_anywhere(void **state)
{
    size_t         i, len;
    unsigned       c;
    unsigned char  buf[40];

    for (len = 3; len < sizeof(buf); len++) {
        for (i = 1; i < len - 1; i++) {
            for (c = 0; c < 256; c++) {

                memset(buf, 'x', len);
                buf[0] = '"';
                buf[len - 1] = '"';
                buf[i] = c;

                if (kind_of(nango_str(buf, len))
                    != (c < 0x20 || c == '"' || c == '\\'
                        ? NANGO_JSON_INVALID : NANGO_JSON_OTHER))
                {
                    fail_msg("byte %u at %zu of %zu", c, i, len);
                }
            }
        }
    }
}


static nango_str_t
nested(size_t depth, const char *open, const char *close)
{
    size_t          i, lopen, lclose;
    unsigned char  *buf, *p;

    lopen = strlen(open);
    lclose = strlen(close);
    buf = malloc(depth * (lopen + lclose) + 1);
    assert_non_null(buf);
    p = buf;

    for (i = 0; i < depth; i++) {
        memcpy(p, open, lopen);
        p += lopen;
    }

    if (lopen > 1) {
        *p++ = '1';
    }

    for (i = 0; i < depth; i++) {
        memcpy(p, close, lclose);
        p += lclose;
    }

    return nango_str(buf, p - buf);
}


static nango_json_kind_e
kind_of_nested(size_t depth, const char *open, const char *close)
{
    nango_str_t        text;
    nango_json_kind_e  kind;

    text = nested(depth, open, close);
    kind = kind_of(text);
    exact_free(text);

    return kind;
}


static void
depth_ends_at_1024(void **state)
{
    assert_int_equal(kind_of_nested(1024, "[", "]"), NANGO_JSON_OTHER);
    assert_int_equal(kind_of_nested(1025, "[", "]"), NANGO_JSON_INVALID);
    assert_int_equal(kind_of_nested(1024, "{\"a\":", "}"), NANGO_JSON_OBJECT);
    assert_int_equal(kind_of_nested(1025, "{\"a\":", "}"),
                     NANGO_JSON_INVALID);
    assert_int_equal(kind_of_nested(512, "[{\"a\":", "}]"), NANGO_JSON_OTHER);
    assert_int_equal(kind_of_nested(513, "[{\"a\":", "}]"),
                     NANGO_JSON_INVALID);
    assert_int_equal(kind_of_nested(512, "{\"a\":[", "]}"),
                     NANGO_JSON_OBJECT);
    assert_int_equal(kind_of_nested(513, "{\"a\":[", "]}"),
                     NANGO_JSON_INVALID);
}


static void
depth_of_100000_does_no_harm(void **state)
{
    assert_int_equal(kind_of_nested(100000, "[", "]"), NANGO_JSON_INVALID);
    assert_int_equal(kind_of_nested(100000, "{\"a\":", "}"),
                     NANGO_JSON_INVALID);
    assert_int_equal(kind_of_nested(100000, "[", ""), NANGO_JSON_INVALID);
}


/* The kind of each level is remembered, over the edges of words of bits. */

static void
levels_close_as_they_opened(void **state)
{
    size_t          i;
    nango_str_t     text;
    unsigned char  *p;

    text = nested(200, "[", "]");
    p = (unsigned char *) text.data;

    for (i = 200; i < 400; i++) {
        p[i] = '}';
        assert_int_equal(kind_of(text), NANGO_JSON_INVALID);
        p[i] = ']';
    }

    assert_int_equal(kind_of(text), NANGO_JSON_OTHER);
    exact_free(text);
}


static void
siblings_do_not_disturb_levels(void **state)
{
    size_t          i, len;
    char            text[4096];

    /* down and up across level 64, with the other kind the second time */

    len = 0;

    for (i = 0; i < 62; i++) {
        text[len++] = '[';
    }

    len += sprintf(text + len, "[[[{\"a\":[1]}]]],{\"a\":{\"b\":[{}]}},"
                               "[[[]]]");

    for (i = 0; i < 62; i++) {
        text[len++] = ']';
    }

    assert_int_equal(kind_of(nango_str(text, len)), NANGO_JSON_OTHER);
}


static void
values_are_exact_ranges(void **state)
{
    assert_str(member_a(S("{\"a\":1}")), "1");
    assert_str(member_a(S("{\"a\" : \t-1.5e3\n}")), "-1.5e3");
    assert_str(member_a(S("{ \"a\" :\r\n\"x y\" , \"b\":2}")), "\"x y\"");
    assert_str(member_a(S("{\"b\":2,\"a\": { \"c\" : [ ] } }")),
               "{ \"c\" : [ ] }");
    assert_str(member_a(S("{\"a\":[1, {\"a\":2}]}")), "[1, {\"a\":2}]");
    assert_str(member_a(S("{\"a\":\"\"}")), "\"\"");
    assert_str(member_a(S("{\"a\":\"\\\"}\"}")), "\"\\\"}\"");
    assert_str(member_a(S("{\"a\":null}")), "null");
}


static void
values_point_into_the_text(void **state)
{
    nango_str_t  text;

    text = S("{\"b\":1,\"a\":true}");
    assert_ptr_equal(member_a(text).data, text.data + 11);
}


static void
nested_members_are_not_members(void **state)
{
    assert_absent(member_a(S("{\"b\":{\"a\":1}}")));
    assert_absent(member_a(S("{\"b\":[{\"a\":1}]}")));
    assert_absent(member_a(S("{\"b\":\"\\\"a\\\":1\"}")));
}


static void
last_of_a_name_counts(void **state)
{
    assert_str(member_a(S("{\"a\":1,\"b\":2,\"a\":3}")), "3");
    assert_str(member_a(S("{\"a\":1,\"\\u0061\":3}")), "3");
    assert_str(member_a(S("{\"\\u0061\":1,\"a\":3}")), "3");
}


static void
names_are_compared_decoded(void **state)
{
    size_t               i;
    nango_json_member_t  m = { nango_null_str, nango_null_str };

    static const struct {
        nango_str_t  text;
        nango_str_t  name;
        int          found;
    } table[] = {
#define row(t, n, f)  { nango_string(t), nango_string(n), f }
        row("{\"\\u0061bc\":1}", "abc", 1),
        row("{\"ab\\u0063\":1}", "abc", 1),
        row("{\"\\u0061\\u0062\\u0063\":1}", "abc", 1),
        row("{\"ab\\u0064\":1}", "abc", 0),
        row("{\"ab\\u0063d\":1}", "abc", 0),
        row("{\"\\u0061b\":1}", "abc", 0),
        row("{\"a\\/b\":1}", "a/b", 1),
        row("{\"a\\\\b\":1}", "a\\b", 1),
        row("{\"a\\\\b\":1}", "a\\\\b", 0),
        row("{\"\\\"\":1}", "\"", 1),
        row("{\"\\b\\f\\n\\r\\t\":1}", "\b\f\n\r\t", 1),
        row("{\"\\u00e9\":1}", "\xc3\xa9", 1),
        row("{\"\\u20AC\":1}", "\xe2\x82\xac", 1),
        row("{\"\\ud83d\\ude00\":1}", "\xf0\x9f\x98\x80", 1),
        row("{\"\xf0\x9f\x98\x80\\u0061\":1}", "\xf0\x9f\x98\x80" "a", 1),
        row("{\"\\ud83d\":1}", "\xf0\x9f\x98\x80", 0),
        row("{\"\\ud83dx\":1}", "x", 0),
        row("{\"\\ude00\\ud83d\":1}", "\xf0\x9f\x98\x80", 0),
        row("{\"a\\u0000\":1}", "a", 0),
        row("{\"a\\u0000\":1}", "a\0", 1),
        row("{\"\":1}", "", 1),
        row("{\"a\":1}", "", 0),
        row("{\"\":1}", "a", 0),
        row("{\"A\":1}", "a", 0)
#undef row
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        m.name = table[i].name;
        assert_int_equal(nango_json_members(table[i].text, &m, 1),
                         NANGO_JSON_OBJECT);

        if ((m.value.data != NULL) != table[i].found) {
            fail_msg("entry %zu: %s", i, (const char *) table[i].text.data);
        }
    }
}


static void
several_members_are_found_at_once(void **state)
{
    nango_json_member_t  m[] = {
        { nango_string("x"), nango_null_str },
        { nango_string("y"), nango_string("stale") },
        { nango_string("x"), nango_null_str },
        { nango_string("z"), nango_null_str }
    };

    assert_int_equal(nango_json_members(S("{\"z\":3,\"x\":1}"), m, 4),
                     NANGO_JSON_OBJECT);
    assert_str(m[0].value, "1");
    assert_absent(m[1].value);
    assert_str(m[2].value, "1");
    assert_str(m[3].value, "3");
}


static void
a_fault_behind_makes_values_absent(void **state)
{
    nango_json_member_t  m = { nango_string("a"), nango_string("stale") };

    assert_int_equal(nango_json_members(S("{\"a\":1,\"b\":}"), &m, 1),
                     NANGO_JSON_INVALID);
    assert_absent(m.value);

    m.value = S("stale");
    assert_int_equal(nango_json_members(S("{\"a\":1} x"), &m, 1),
                     NANGO_JSON_INVALID);
    assert_absent(m.value);

    m.value = S("stale");
    assert_int_equal(nango_json_members(S("[{\"a\":1}]"), &m, 1),
                     NANGO_JSON_OTHER);
    assert_absent(m.value);
}


static void
extra_members_are_told(void **state)
{
    nango_str_t          extra;
    nango_json_member_t  m[] = {
        { nango_string("a"), nango_null_str },
        { nango_string("b"), nango_null_str }
    };

    assert_int_equal(nango_json_extra(S("{}"), m, 2, &extra), 0);
    assert_absent(extra);

    assert_int_equal(nango_json_extra(S("{\"b\":1,\"\\u0061\":2}"), m, 2,
                                      &extra), 0);
    assert_absent(extra);

    assert_int_equal(nango_json_extra(
                         S("{\"b\":1,\"c\\n\":{\"d\":2},\"e\":3}"), m, 2,
                         &extra), 1);
    assert_str(extra, "\"c\\n\"");

    assert_int_equal(nango_json_extra(S("{\"c\":1}"), m, 2, NULL), 1);
    assert_int_equal(nango_json_extra(S("{\"c\":1}"), NULL, 0, NULL), 1);
    assert_int_equal(nango_json_extra(S("{\"a\":{\"c\":1}}"), m, 2, NULL), 0);
    assert_int_equal(nango_json_extra(S("{\"A\":1}"), m, 2, NULL), 1);
}


static void
extra_refuses_what_is_no_object(void **state)
{
    nango_str_t  extra;

    assert_int_equal(nango_json_extra(S("[]"), NULL, 0, &extra), -1);
    assert_absent(extra);
    assert_int_equal(nango_json_extra(S("{\"c\":1"), NULL, 0, &extra), -1);
    assert_absent(extra);
    assert_int_equal(nango_json_extra(S("null"), NULL, 0, &extra), -1);
    assert_int_equal(nango_json_extra(nango_str(NULL, 0), NULL, 0, NULL), -1);
}


static void
walk_gives_members_in_order(void **state)
{
    nango_str_t        name, value;
    nango_json_walk_t  w;

    assert_int_equal(nango_json_walk(&w,
                         S(" { \"b\" : [1,2] , \"a\":3 ,\"b\":null } ")), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_str(name, "\"b\"");
    assert_str(value, "[1,2]");
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_str(name, "\"a\"");
    assert_str(value, "3");
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_str(name, "\"b\"");
    assert_str(value, "null");
    assert_int_equal(nango_json_next(&w, &name, &value), 0);
}


static void
walk_gives_elements_in_order(void **state)
{
    nango_str_t        name, value;
    nango_json_walk_t  w;

    assert_int_equal(nango_json_walk(&w, S("[ {\"a\":1} ,\"x\"]")), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_absent(name);
    assert_str(value, "{\"a\":1}");
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_str(value, "\"x\"");
    assert_int_equal(nango_json_next(&w, &name, &value), 0);

    assert_int_equal(nango_json_walk(&w, S("[]")), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), 0);
}


static void
walk_tells_faults(void **state)
{
    nango_str_t        name, value;
    nango_json_walk_t  w;

    assert_int_equal(nango_json_walk(&w, S("[1 2]")), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), -1);

    assert_int_equal(nango_json_walk(&w, S("[1] 2")), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), 1);
    assert_int_equal(nango_json_next(&w, &name, &value), -1);

    assert_int_equal(nango_json_walk(&w, S("1")), 0);
    assert_int_equal(nango_json_walk(&w, S("")), 0);
    assert_int_equal(nango_json_walk(&w, nango_str(NULL, 0)), 0);
}


static void
strings_are_decoded(void **state)
{
    size_t         i;
    nango_str_t    s;
    unsigned char  buf[64];

    static const struct {
        nango_str_t  raw;
        nango_str_t  text;
    } table[] = {
#define row(r, t)  { nango_string(r), nango_string(t) }
        row("\"\"", ""),
        row("\"abc\"", "abc"),
        row("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"),
        row("\"\\u0041\\u00e9\\u20ac\"", "A\xc3\xa9\xe2\x82\xac"),
        row("\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"),
        row("\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf"),
        row("\"\\u0001\"", "\x01"),
        row("\"\\uffff\"", "\xef\xbf\xbf"),
        row("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
            "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")
#undef row
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(nango_json_string(table[i].raw, buf,
                                           table[i].raw.len - 2, &s),
                         NANGO_JSON_STRING_OK);
        assert_str_at(s, table[i].text, __FILE__, __LINE__);
    }
}


static void
strings_that_are_none_are_bad(void **state)
{
    size_t         i;
    nango_str_t    s;
    unsigned char  buf[64];

    static const nango_str_t  table[] = {
        nango_string(""), nango_string("\""), nango_string("5"),
        nango_string("null"), nango_string("abc"), nango_string("\"abc"),
        nango_string("abc\""), nango_string("[\"a\"]"),
        nango_string("\"\\u0000\""), nango_string("\"a\\u0000b\""),
        nango_string("\"\\ud800\""), nango_string("\"\\udc00\""),
        nango_string("\"\\ud800x\""), nango_string("\"\\ud800\\n\""),
        nango_string("\"\\ud800\\u0041\""),
        nango_string("\"\\ud800\\ud800\""),
        nango_string("\"\\udc00\\ud800\""), nango_string("\"\\\""),
        nango_string("\"\\q\""), nango_string("\"\\u12\""),
        nango_string("\"a\"b\""), nango_string("\"\n\""),
        nango_string("\"\x80\""), nango_string("\"\xc3\""),
        nango_string("\"\xc0\x80\""), nango_string("\"\xe0\x80\x80\""),
        nango_string("\"\xed\xa0\x80\""), nango_string("\"\xf0\x80\x80\x80\""),
        nango_string("\"\xf4\x90\x80\x80\""), nango_string("\"\xff\"")
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        s = S("stale");

        if (nango_json_string(table[i], buf, sizeof(buf), &s)
            != NANGO_JSON_STRING_BAD)
        {
            fail_msg("entry %zu: %s", i, (const char *) table[i].data);
        }

        assert_absent(s);
    }

    assert_int_equal(nango_json_string(nango_str(NULL, 0), buf, 1, &s),
                     NANGO_JSON_STRING_BAD);
}


static void
strings_are_cut_between_characters(void **state)
{
    nango_str_t    s;
    unsigned char  buf[8];

    assert_int_equal(nango_json_string(S("\"abcdef\""), buf, 3, &s),
                     NANGO_JSON_STRING_CUT);
    assert_str(s, "abc");

    assert_int_equal(nango_json_string(S("\"ab\xe2\x82\xac" "c\""), buf, 4,
                                       &s),
                     NANGO_JSON_STRING_CUT);
    assert_str(s, "ab");

    assert_int_equal(nango_json_string(S("\"ab\\ud83d\\ude00c\""), buf, 5,
                                       &s),
                     NANGO_JSON_STRING_CUT);
    assert_str(s, "ab");

    assert_int_equal(nango_json_string(S("\"a\""), buf, 0, &s),
                     NANGO_JSON_STRING_CUT);
    assert_str(s, "");
}


static void
what_is_cut_off_is_checked(void **state)
{
    nango_str_t    s;
    unsigned char  buf[2];

    assert_int_equal(nango_json_string(S("\"abcd\\ud800\""), buf, 2, &s),
                     NANGO_JSON_STRING_BAD);
    assert_int_equal(nango_json_string(S("\"abcd\xff\""), buf, 2, &s),
                     NANGO_JSON_STRING_BAD);
    assert_int_equal(nango_json_string(S("\"abcd\\u0000\""), buf, 2, &s),
                     NANGO_JSON_STRING_BAD);
}


static void
load_takes_scalars(void **state)
{
    json_t  *v;

    v = nango_json_load(S("\"x\\u00e9\""));
    assert_string_equal(json_string_value(v), "x\xc3\xa9");
    json_decref(v);

    v = nango_json_load(S("42"));
    assert_int_equal(json_integer_value(v), 42);
    json_decref(v);

    v = nango_json_load(S("null"));
    assert_true(json_is_null(v));
    json_decref(v);

    v = nango_json_load(S("{\"a\":[1]}"));
    assert_true(json_is_object(v));
    json_decref(v);
}


static void
load_refuses(void **state)
{
    assert_null(nango_json_load(nango_str(NULL, 0)));
    assert_null(nango_json_load(S("")));
    assert_null(nango_json_load(S("\"\\u0000\"")));
    assert_null(nango_json_load(S("\"\\ud800\"")));
    assert_null(nango_json_load(S("123456789012345678901234567890")));
    assert_null(nango_json_load(S("1 2")));
    assert_null(nango_json_load(S("\"\xff\"")));
}


static void
load_has_a_limit(void **state)
{
    char    *buf;
    json_t  *v;

    buf = malloc(NANGO_JSON_MAX_VALUE + 1);
    assert_non_null(buf);
    memset(buf, 'x', NANGO_JSON_MAX_VALUE + 1);
    buf[0] = '"';
    buf[NANGO_JSON_MAX_VALUE - 1] = '"';

    v = nango_json_load(nango_str(buf, NANGO_JSON_MAX_VALUE));
    assert_non_null(v);
    json_decref(v);

    buf[NANGO_JSON_MAX_VALUE - 1] = 'x';
    buf[NANGO_JSON_MAX_VALUE] = '"';
    assert_null(nango_json_load(nango_str(buf, NANGO_JSON_MAX_VALUE + 1)));

    free(buf);
}


static void
literals_are_compared_whole(void **state)
{
    assert_true(nango_json_is(S("true"), "true"));
    assert_false(nango_json_is(S("tru"), "true"));
    assert_false(nango_json_is(S("\"true\""), "true"));
    assert_false(nango_json_is(nango_str(NULL, 0), "true"));
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(objects_are_objects),
        unit(other_values_are_json),
        unit(no_json_is_refused),
        unit(any_cut_is_refused),
        unit(special_bytes_are_seen_anywhere),
        unit(depth_ends_at_1024),
        unit(depth_of_100000_does_no_harm),
        unit(levels_close_as_they_opened),
        unit(siblings_do_not_disturb_levels),
        unit(values_are_exact_ranges),
        unit(values_point_into_the_text),
        unit(nested_members_are_not_members),
        unit(last_of_a_name_counts),
        unit(names_are_compared_decoded),
        unit(several_members_are_found_at_once),
        unit(a_fault_behind_makes_values_absent),
        unit(extra_members_are_told),
        unit(extra_refuses_what_is_no_object),
        unit(walk_gives_members_in_order),
        unit(walk_gives_elements_in_order),
        unit(walk_tells_faults),
        unit(strings_are_decoded),
        unit(strings_that_are_none_are_bad),
        unit(strings_are_cut_between_characters),
        unit(what_is_cut_off_is_checked),
        unit(load_takes_scalars),
        unit(load_refuses),
        unit(load_has_a_limit),
        unit(literals_are_compared_whole)
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
