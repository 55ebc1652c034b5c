/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_secret.h"


#define BOM  "\xef\xbb\xbf"


/*
 * All secrets of a text, joined by "|", then "!" where a line is refused and
 * "." at the end.
 */

static void
assert_secrets(nango_str_t text, const char *expected)
{
    int          rc;
    char         buf[256];
    size_t       len;
    nango_str_t  secret, copy, rest;

    copy = exact(text);
    rest = copy;
    len = 0;

    do {
        rc = nango_secret_next(&rest, &secret);

        if (rc == 1) {
            assert_true(len + secret.len + 2 < sizeof(buf));
            memcpy(buf + len, secret.data, secret.len);
            len += secret.len;
            buf[len++] = '|';

        } else {
            buf[len++] = rc == 0 ? '.' : '!';
        }

    } while (rc != 0);

    buf[len] = '\0';
    assert_string_equal(buf, expected);

    assert_int_equal(nango_secret_next(&rest, &secret), 0);
    exact_free(copy);
}


static void
one_line_is_one_secret(void **state)
{
    assert_secrets(S("key"), "key|.");
    assert_secrets(S("key\n"), "key|.");
    assert_secrets(S("k"), "k|.");
}


static void
lines_are_secrets_in_order(void **state)
{
    assert_secrets(S("one\ntwo\nthree"), "one|two|three|.");
}


static void
line_ends_of_any_editor_are_cut(void **state)
{
    assert_secrets(S("one\r\ntwo\r\n"), "one|two|.");
    assert_secrets(S("one\r\r\n"), "one|.");
    assert_secrets(S("one\r"), "one|.");
}


static void
byte_order_mark_is_cut(void **state)
{
    assert_secrets(S(BOM "key\r\n"), "key|.");
    assert_secrets(S(BOM "\nkey"), "key|.");
    assert_secrets(S(BOM), ".");
    assert_secrets(S(BOM " key"), "key|.");
}


static void
blanks_around_are_cut(void **state)
{
    assert_secrets(S("  key \t \n\tkey2"), "key|key2|.");
}


static void
blanks_inside_are_kept(void **state)
{
    assert_secrets(S("my key"), "my key|.");
}


static void
empty_lines_are_skipped(void **state)
{
    assert_secrets(S("\n\n \t\n\r\none\n\n\ntwo\n\n"), "one|two|.");
}


static void
nothing_is_nothing(void **state)
{
    assert_secrets(S(""), ".");
    assert_secrets(S("\n"), ".");
    assert_secrets(S(" \r\n\t\n"), ".");
    assert_secrets(nango_str(NULL, 0), ".");
}


static void
what_no_key_has_is_refused(void **state)
{
    assert_secrets(S("a\0b"), "!.");
    assert_secrets(S("a\tb"), "!.");
    assert_secrets(S("a\rb"), "!.");
    assert_secrets(S("a\x1b[0m"), "!.");
    assert_secrets(S("a\x7f"), "!.");
    assert_secrets(S("caf\xc3\xa9"), "!.");
    assert_secrets(S("\xc2\xa0key"), "!.");
    assert_secrets(S("\xff\xfek\0e\0y\0"), "!.");       /* UTF-16 */
    assert_secrets(S("\xef\xbb"), "!.");
    assert_secrets(S("key" BOM), "!.");
}


static void
a_refused_line_does_not_hide_the_next(void **state)
{
    assert_secrets(S("one\nt\x01wo\nthree"), "one|!three|.");
}


static void
secret_points_into_the_text(void **state)
{
    nango_str_t  text, rest, secret;

    text = S(" key\nnext");
    rest = text;

    assert_int_equal(nango_secret_next(&rest, &secret), 1);
    assert_ptr_equal(secret.data, text.data + 1);
    assert_ptr_equal(rest.data, text.data + 5);
    assert_int_equal(rest.len, 4);
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(one_line_is_one_secret),
        unit(lines_are_secrets_in_order),
        unit(line_ends_of_any_editor_are_cut),
        unit(byte_order_mark_is_cut),
        unit(blanks_around_are_cut),
        unit(blanks_inside_are_kept),
        unit(empty_lines_are_skipped),
        unit(nothing_is_nothing),
        unit(what_no_key_has_is_refused),
        unit(a_refused_line_does_not_hide_the_next),
        unit(secret_points_into_the_text)
    };

    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
