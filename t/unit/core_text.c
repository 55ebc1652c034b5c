/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_text.h"

#include <jansson.h>
#include <time.h>



#define assert_text(t, expected)                                              \
    do {                                                                      \
        assert_int_equal((t).failed, 0);                                      \
        assert_int_equal((t).len, strlen(expected));                          \
        assert_memory_equal((t).data, expected, strlen(expected));            \
        nango_text_free(&(t));                                                \
    } while (0)


static void
numbers_and_times(void **state)
{
    size_t        i;
    nango_text_t  t;

    static const struct {
        uint64_t     n;
        const char  *number;
        const char  *time;
    } all[] = {
        { 0, "0", "null" },
        { 1, "1", "\"1970-01-01T00:00:00.001Z\"" },
        { UINT64_C(1700000000123), "1700000000123",
          "\"2023-11-14T22:13:20.123Z\"" },
        { UINT64_C(253402300800000), "253402300800000",
          "\"10000-01-01T00:00:00.000Z\"" },
        { UINT64_MAX, "18446744073709551615", NULL }
    };

    memset(&t, 0, sizeof(t));

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        nango_text_number(&t, all[i].n);
        assert_text(t, all[i].number);

        nango_text_time(&t, all[i].n);

        if (all[i].time != NULL) {
            assert_text(t, all[i].time);
        }

        nango_text_free(&t);
    }
}


/* Each day of 800 years, and some of its times, as libc has them. */

static void
each_day_is_one_of_the_calendar(void **state)
{
    char          text[64];
    time_t        at;
    struct tm     tm;
    nango_text_t  t;

    memset(&t, 0, sizeof(t));

    for (at = 1; at < (time_t) 86400 * 365 * 800; at += 86399) {
        assert_non_null(gmtime_r(&at, &tm));

        (void) strftime(text, sizeof(text), "\"%Y-%m-%dT%H:%M:%S.007Z\"",
                        &tm);

        nango_text_time(&t, (uint64_t) at * 1000 + 7);
        assert_text(t, text);
    }
}


static void
strings_are_escaped(void **state)
{
    size_t        i;
    nango_text_t  t;

    static const struct {
        nango_str_t  s;
        const char  *json;
    } all[] = {
        { nango_null_str, "\"\"" },
        { nango_string(""), "\"\"" },
        { nango_string("plain"), "\"plain\"" },
        { nango_string("\"\\/"), "\"\\\"\\\\/\"" },
        { nango_string("a\nb\0c\x1f\x7f"),
          "\"a\\u000ab\\u0000c\\u001f\\u007f\"" },
        { nango_string("\xc3\xa4\xf0\x9f\x98\x80"),
          "\"\xc3\xa4\xf0\x9f\x98\x80\"" },
        { nango_string("a\xffz\xc3"), "\"a\xef\xbf\xbdz\xef\xbf\xbd\"" },
        { nango_string("\xed\xa0\x80"),
          "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" }
    };

    memset(&t, 0, sizeof(t));

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        nango_text_json(&t, all[i].s);
        assert_text(t, all[i].json);
    }
}


/* All that JSON can hold comes back, as jansson reads it. */

static void
a_string_comes_back(void **state)
{
    int             i;
    json_t         *json;
    nango_str_t     s;
    nango_text_t    t;
    unsigned char   all[128];

    memset(&t, 0, sizeof(t));

    for (i = 0; i < 128; i++) {
        all[i] = (unsigned char) i;
    }

    s = exact(nango_str(all, sizeof(all)));

    nango_text_json(&t, s);

    json = json_loadb((char *) t.data, t.len, JSON_DECODE_ANY|JSON_ALLOW_NUL,
                      NULL);
    assert_non_null(json);
    assert_int_equal(json_string_length(json), sizeof(all));
    assert_memory_equal(json_string_value(json), all, sizeof(all));

    json_decref(json);
    nango_text_free(&t);
    exact_free(s);
}


static void
base64_of_all_lengths(void **state)
{
    size_t        i;
    nango_str_t   s;
    nango_text_t  t;

    static const char  *all[] = { "\"\"", "\"Zg==\"", "\"Zm8=\"", "\"Zm9v\"",
                                  "\"Zm9vYg==\"", "\"Zm9vYmE=\"",
                                  "\"Zm9vYmFy\"" };

    memset(&t, 0, sizeof(t));

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        s = exact(nango_str("foobar", i));
        nango_text_base64(&t, s);
        assert_text(t, all[i]);
        exact_free(s);
    }

    nango_text_base64(&t, S("\xff\xfe\xfb\xef\xbe"));
    assert_text(t, "\"//77774=\"");
}


static void
it_grows(void **state)
{
    int            i;
    nango_text_t   t;
    unsigned char  raw[] = { 0x00, 0x9f, 0xff };

    memset(&t, 0, sizeof(t));

    for (i = 0; i < 100000; i++) {
        nango_text_string(&t, "ab");
        nango_text_add(&t, nango_str(NULL, 0));
        nango_text_hex(&t, raw, sizeof(raw));
    }

    assert_int_equal(t.failed, 0);
    assert_int_equal(t.len, 800000);
    assert_true(t.size < 4 * t.len);

    for (i = 0; i < 100000; i++) {
        assert_memory_equal(t.data + 8 * i, "ab009fff", 8);
    }

    nango_text_free(&t);
    assert_null(t.data);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(numbers_and_times),
        cmocka_unit_test(each_day_is_one_of_the_calendar),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(a_string_comes_back),
        cmocka_unit_test(base64_of_all_lengths),
        cmocka_unit_test(it_grows)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
