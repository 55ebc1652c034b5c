/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_tags.h"


#define SIZE_ERROR   "must be 1 to 255 characters long"
#define BYTES_ERROR  "must be UTF-8 without control characters"
#define EMAIL_ERROR  "must be an e-mail address"

#define X8   "xxxxxxxx"
#define X64  X8 X8 X8 X8 X8 X8 X8 X8


static const char *
value_error(nango_str_t value)
{
    nango_str_t   copy;
    const char   *error;

    copy = exact(value);
    error = nango_tag_value_error(S("plan"), copy);
    exact_free(copy);

    return error;
}


static nango_str_t
repeat(const char *s, size_t n)
{
    size_t          i, len;
    unsigned char  *p;

    len = strlen(s);
    p = malloc(n * len + 1);
    assert_non_null(p);

    for (i = 0; i < n; i++) {
        memcpy(p + i * len, s, len);
    }

    return nango_str(p, n * len);
}


static const char *
repeated_error(const char *s, size_t n)
{
    nango_str_t   value;
    const char   *error;

    value = repeat(s, n);
    error = value_error(value);
    exact_free(value);

    return error;
}


static void
names_that_nango_takes(void **state)
{
    size_t  i;

    static const nango_str_t  table[] = {
        nango_string("a"), nango_string("Z"), nango_string("end_user_id"),
        nango_string("a-b.c/d_e"), nango_string("a1"), nango_string("A..--"),
        nango_string(X64)
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_null(nango_tag_name_error(table[i]));
    }
}


static void
names_that_nango_refuses(void **state)
{
    size_t  i;

    static const nango_str_t  table[] = {
        nango_string(""), nango_string(X64 "x"), nango_string("1a"),
        nango_string("_a"), nango_string("-a"), nango_string(".a"),
        nango_string("/a"), nango_string("a b"), nango_string(" a"),
        nango_string("a "), nango_string("a\n"), nango_string("a\0"),
        nango_string("a:b"), nango_string("a@b"), nango_string("a[b"),
        nango_string("a`b"), nango_string("a{b"), nango_string("@a"),
        nango_string("[a"), nango_string("`a"), nango_string("{a"),
        nango_string("a,b"), nango_string("a+b"), nango_string("\xc3\xa9"),
        nango_string("a\xc3\xa9"), nango_string("a\\b"), nango_string("a\"b")
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (nango_tag_name_error(table[i]) == NULL) {
            fail_msg("%s", (const char *) table[i].data);
        }
    }

    assert_non_null(nango_tag_name_error(nango_str(NULL, 0)));
}


static void
name_errors_say_what(void **state)
{
    assert_string_equal(nango_tag_name_error(S("")),
                        "must be 1 to 64 characters long");
    assert_string_equal(nango_tag_name_error(S("9")),
                        "must begin with a letter");
    assert_string_equal(nango_tag_name_error(S("a b")),
                        "must hold only letters, digits, \"_\", \"-\", \".\" "
                        "and \"/\"");
}


static void
value_lengths_are_in_utf16(void **state)
{
    assert_string_equal(value_error(S("")), SIZE_ERROR);
    assert_string_equal(value_error(nango_str(NULL, 0)), SIZE_ERROR);
    assert_null(repeated_error("x", 1));
    assert_null(repeated_error("x", 255));
    assert_string_equal(repeated_error("x", 256), SIZE_ERROR);
    assert_null(repeated_error("\xc3\xa9", 255));
    assert_string_equal(repeated_error("\xc3\xa9", 256), SIZE_ERROR);
    assert_null(repeated_error("\xe2\x82\xac", 255));
    assert_string_equal(repeated_error("\xe2\x82\xac", 256), SIZE_ERROR);
    assert_null(repeated_error("\xf0\x9f\x98\x80", 127));
    assert_string_equal(repeated_error("\xf0\x9f\x98\x80", 128), SIZE_ERROR);
    assert_string_equal(repeated_error("\xf0\x9f\x98\x80", 255), SIZE_ERROR);
    assert_string_equal(repeated_error("x", 100000), SIZE_ERROR);
}


static void
values_are_clean_utf8(void **state)
{
    size_t  i;

    static const nango_str_t  good[] = {
        nango_string(" "), nango_string("a b"), nango_string("\"\\'<>&;="),
        nango_string("~"), nango_string("\xc2\x80"), nango_string("\xdf\xbf"),
        nango_string("\xe0\xa0\x80"), nango_string("\xed\x9f\xbf"),
        nango_string("\xee\x80\x80"), nango_string("\xef\xbf\xbf"),
        nango_string("\xf0\x90\x80\x80"), nango_string("\xf4\x8f\xbf\xbf")
    };

    static const nango_str_t  bad[] = {
        nango_string("\0"), nango_string("a\0b"), nango_string("\n"),
        nango_string("a\r\nb"), nango_string("\t"), nango_string("\x1f"),
        nango_string("\x7f"), nango_string("\x80"), nango_string("\xbf"),
        nango_string("\xc0\x80"), nango_string("\xc1\xbf"),
        nango_string("\xc3"), nango_string("\xc3x"), nango_string("\xc3\xc3"),
        nango_string("\xe0\x9f\xbf"), nango_string("\xe2\x82"),
        nango_string("\xe2\x82x"), nango_string("\xe2x\xac"),
        nango_string("\xed\xa0\x80"), nango_string("\xed\xbf\xbf"),
        nango_string("\xf0\x8f\xbf\xbf"), nango_string("\xf0\x9f\x98"),
        nango_string("\xf0\x9f\x98x"), nango_string("\xf4\x90\x80\x80"),
        nango_string("\xf5\x80\x80\x80"), nango_string("\xff"),
        nango_string("\xfe"), nango_string("ok\xff")
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (value_error(good[i]) != NULL) {
            fail_msg("good %zu", i);
        }
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_non_null(value_error(bad[i]));
        assert_string_equal(value_error(bad[i]), BYTES_ERROR);
    }
}


/* The verdicts are those of zod 4.0.5. */

static void
email_is_checked_as_nango_does(void **state)
{
    size_t        i;
    const char   *error;

    static const char  *good[] = {
        "ann@example.com", "a@b.co", "A@B.CO", "ann.smith@example.com",
        "a+b@example.com", "a_b-c@example.co.uk", "o'neil@example.com",
        "1@2.com", "-@b.co", "_@b.co", "+@b.co", "a-@b.co", "'a@b.co",
        "a@b-c.example", "a@b-.co", "a@1.2.co", "a@x--y.co",
        "a@xn--80ak6aa92e.com", "a.b.c.d@e.f.g.hi", "a@3com.museum",
        "x@abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz"
    };

    static const char  *bad[] = {
        "ann", "@", "a@", "@b.co", "a@b", "a@b.c", "a@b.1", "a@b.c1",
        "a@b.co1", "a@b.1co", "a@b.c-o", "a@b.co-", "a@.co", "a@b..co",
        "a@-b.co", "a@b.-c.co", "a@b.co.", "a@.b.co", ".a@b.co", "a.@b.co",
        "a..b@c.de", "a'@b.co", "'@b.co", ".@b.co", "a@b@c.de", "a b@c.de",
        "a@b c.de", " a@b.co", "a@b.co ", "a@b_c.de", "a@b.co'", "a@b+c.de",
        "\"a\"@b.co", "a@[127.0.0.1]", "a@localhost", "a!b@c.de", "a#b@c.de",
        "a%b@c.de", "a&b@c.de", "a*b@c.de", "a/b@c.de", "a=b@c.de",
        "a?b@c.de", "a^b@c.de", "a{b@c.de", "a|b@c.de", "a~b@c.de",
        "a,b@c.de", "a:b@c.de", "a;b@c.de", "a<b@c.de", "a\\b@c.de",
        "\xc3\xa9@b.co", "a@\xc3\xa9.co", "a@b.\xc3\xa9\xc3\xa9",
        "mailto:a@b.co", "Ann <a@b.co>", "a@b.co,c@d.ef"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (nango_tag_value_error(S("end_user_email"), Z(good[i])) != NULL) {
            fail_msg("refused: %s", good[i]);
        }
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        error = nango_tag_value_error(S("end_user_email"), Z(bad[i]));

        if (error == NULL) {
            fail_msg("taken: %s", bad[i]);
        }

        assert_string_equal(error, EMAIL_ERROR);
    }
}


static void
email_rule_is_for_its_tag_alone(void **state)
{
    assert_null(nango_tag_value_error(S("email"), S("nobody")));
    assert_null(nango_tag_value_error(S("end_user_email2"), S("nobody")));
    assert_null(nango_tag_value_error(S("end_user_id"), S("nobody")));
}


static void
integrations_that_nango_takes(void **state)
{
    nango_str_t  s;

    assert_true(nango_integration_valid(S("github")));
    assert_true(nango_integration_valid(S("aZ09~:.@ _-")));
    assert_true(nango_integration_valid(S(".")));

    s = repeat("x", 255);
    assert_true(nango_integration_valid(s));
    exact_free(s);
}


static void
integrations_that_nango_refuses(void **state)
{
    unsigned       c;
    nango_str_t    s;
    unsigned char  one;

    assert_false(nango_integration_valid(S("")));
    assert_false(nango_integration_valid(nango_str(NULL, 0)));
    assert_false(nango_integration_valid(S("git\nhub")));
    assert_false(nango_integration_valid(S("github\n")));

    s = repeat("x", 256);
    assert_false(nango_integration_valid(s));
    exact_free(s);

    for (c = 0; c < 256; c++) {
        one = (unsigned char) c;
        assert_int_equal(nango_integration_valid(nango_str(&one, 1)),
            c != 0 && strchr("abcdefghijklmnopqrstuvwxyz"
                             "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "0123456789~:.@ _-", (int) c) != NULL);
    }
}


static void
utf16_units_are_counted(void **state)
{
    assert_int_equal(nango_utf16_len(nango_str(NULL, 0)), 0);
    assert_int_equal(nango_utf16_len(S("")), 0);
    assert_int_equal(nango_utf16_len(S("abc")), 3);
    assert_int_equal(nango_utf16_len(S("\xc3\xa9")), 1);
    assert_int_equal(nango_utf16_len(S("\xe2\x82\xac")), 1);
    assert_int_equal(nango_utf16_len(S("\xf0\x9f\x98\x80")), 2);
    assert_int_equal(nango_utf16_len(S("a\x7f")), -1);
    assert_int_equal(nango_utf16_len(S("\xed\xa0\x80")), -1);
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(names_that_nango_takes),
        unit(names_that_nango_refuses),
        unit(name_errors_say_what),
        unit(value_lengths_are_in_utf16),
        unit(values_are_clean_utf8),
        unit(email_is_checked_as_nango_does),
        unit(email_rule_is_for_its_tag_alone),
        unit(integrations_that_nango_takes),
        unit(integrations_that_nango_refuses),
        unit(utf16_units_are_counted)
    };

    return cmocka_run_group_tests_name("tags", tests, NULL, NULL);
}
