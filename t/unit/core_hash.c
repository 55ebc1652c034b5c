/*
 * Copyright (C) nginx-nango authors
 *
 * Keys are on disk: the vectors, made with sha256sum, must never change.
 */

#include "core_test.h"

#include "nango_hash.h"

#include <openssl/err.h>


#define NO  nango_str(NULL, 0)


static void
assert_key(const unsigned char *key, const char *hex)
{
    char  buf[NANGO_KEY_LEN * 2 + 1];

    nango_hex((unsigned char *) buf, key, NANGO_KEY_LEN);
    buf[NANGO_KEY_LEN * 2] = '\0';

    assert_string_equal(buf, hex);
}


static void
keys_are_as_on_disk(void **state)
{
    unsigned char  key[NANGO_KEY_LEN];

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"),
                                          S("c1")), 0);
    assert_key(key, "557e974f9ee0c628aa0949310c9bdced");

    assert_int_equal(nango_owner_key(key, S("prod"), S("github"),
                                     S("c1")), 0);
    assert_key(key, "032b0f01b92e7db6b7edf0f9c00c15e9");

    assert_int_equal(nango_environment_key(key, S("prod")), 0);
    assert_key(key, "87b60bd6922feca498d169952cb52f6b");

    assert_int_equal(nango_connection_key(key, NO, S(""), NO), 0);
    assert_key(key, "6ee930bb00fef64a92bf90ab0824353e");
}


static void
parts_do_not_run_into_each_other(void **state)
{
    size_t         i, j;
    unsigned char  keys[6][NANGO_KEY_LEN];

    assert_int_equal(nango_connection_key(keys[0], S("a"), S("b"), S("c")),
                     0);
    assert_int_equal(nango_connection_key(keys[1], S("ab"), S(""), S("c")),
                     0);
    assert_int_equal(nango_connection_key(keys[2], S("a"), S("bc"), NO), 0);
    assert_int_equal(nango_connection_key(keys[3], NO, S("abc"), NO), 0);
    assert_int_equal(nango_owner_key(keys[4], S("a"), S("b"), S("c")), 0);
    assert_int_equal(nango_environment_key(keys[5], S("abc")), 0);

    for (i = 0; i < 6; i++) {
        for (j = 0; j < i; j++) {
            assert_memory_not_equal(keys[i], keys[j], NANGO_KEY_LEN);
        }
    }
}


/* Lengths take four bytes: no long id counts as a short one. */

static void
long_parts_have_their_length(void **state)
{
    char           *big;
    unsigned char   key[NANGO_KEY_LEN];

    big = malloc(65539);
    assert_non_null(big);
    memset(big, 'x', 65539);

    assert_int_equal(nango_environment_key(key, nango_str(big, 65539)), 0);
    assert_key(key, "c1c8ead2304b0682b9a9ae3e2740d255");

    free(big);
}


static void
hex_goes_both_ways(void **state)
{
    unsigned       c;
    unsigned char  in[256], hex[512], out[256];

    for (c = 0; c < 256; c++) {
        in[c] = (unsigned char) c;
    }

    nango_hex(hex, in, sizeof(in));
    assert_memory_equal(hex, "000102", 6);
    assert_memory_equal(hex + 0xab * 2, "abac", 4);

    assert_int_equal(nango_unhex(out, sizeof(out),
                                 nango_str(hex, sizeof(hex))), 0);
    assert_memory_equal(in, out, sizeof(in));
}


static void
unhex_takes_either_case(void **state)
{
    unsigned char  out[3];

    assert_int_equal(nango_unhex(out, 3, S("aBCd0F")), 0);
    assert_memory_equal(out, "\xab\xcd\x0f", 3);
}


static void
unhex_refuses(void **state)
{
    size_t         i;
    unsigned char  out[2];

    static const nango_str_t  table[] = {
        nango_string(""), nango_string("0"), nango_string("000"),
        nango_string("00000"), nango_string("000g"), nango_string("g000"),
        nango_string("00 0"), nango_string("0x00"), nango_string("000/"),
        nango_string("000:"), nango_string("000@"), nango_string("000G"),
        nango_string("000`"), nango_string("000\0"), nango_string("000\x10"),
        nango_string("000\xe1")
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(nango_unhex(out, 2, table[i]), -1);
    }

    assert_int_equal(nango_unhex(out, 0, NO), 0);
}


static int
error_queue_is_empty(void **state)
{
    return ERR_peek_error() == 0 ? 0 : -1;
}


#define unit(f)  cmocka_unit_test_teardown(f, error_queue_is_empty)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(keys_are_as_on_disk),
        unit(parts_do_not_run_into_each_other),
        unit(long_parts_have_their_length),
        unit(hex_goes_both_ways),
        unit(unhex_takes_either_case),
        unit(unhex_refuses)
    };

    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
