/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_hash.h"
#include "nango_signature.h"

#include <openssl/err.h>


#define SYNC_BODY                                                             \
    "{\"type\":\"sync\",\"connectionId\":\"test-connection\","                \
    "\"providerConfigKey\":\"test-provider\",\"syncName\":\"test-sync\","     \
    "\"model\":\"TestModel\",\"responseResults\":{\"added\":5,"               \
    "\"updated\":0,\"deleted\":0}}"


static const char  *captures[] = {
    "apikey-creation.http",
    "apikey-override-notags.http",
    "oauth2-denied.http",
    "oauth2-refresh-error.http",
    "tagsonly-creation.http"
};


static nango_keys_t *
keys_of(const char *key)
{
    nango_keys_t  *keys;

    keys = nango_keys_create();
    assert_non_null(keys);
    assert_int_equal(nango_keys_add(keys, Z(key)), 0);

    return keys;
}


static int
verify_hex(nango_keys_t *keys, nango_str_t body, nango_str_t hex)
{
    unsigned char  mac[NANGO_HMAC_LEN];

    assert_int_equal(nango_signature_parse(hex, mac), 0);

    return nango_verify(keys, body, mac);
}


static void
vectors_verify(void **state)
{
    size_t         i;
    nango_keys_t  *keys;

    static const struct {
        const char  *key;
        const char  *body;
        const char  *hex;
    } v[] = {
        { "test-secret-key", SYNC_BODY,
          "ce6f82d8555253066e19ba3525ebab872d906b9f4607481a889b991b29b17b3a" },
        { "test-webhook-signing-key", SYNC_BODY,
          "ff458d4d1b72d824612760b25f0fcf8d3fdfb6dc174fe4528e78cbd35632ce24" },
        { "test-webhook-signing-key", "",
          "1ea9c291c74b87f176729283ae2d9e266c59f610d1f83eb4d9b2c035e068321a" }
    };

    for (i = 0; i < sizeof(v) / sizeof(v[0]); i++) {
        keys = keys_of(v[i].key);
        assert_int_equal(verify_hex(keys, Z(v[i].body), Z(v[i].hex)), 1);
        nango_keys_free(keys);
    }
}


/* RFC 4231, cases 6 and 7: a key longer than a block is hashed first. */

static void
long_key_verifies(void **state)
{
    char           key[132];
    nango_keys_t  *keys;

    memset(key, 0xaa, 131);
    key[131] = '\0';
    keys = keys_of(key);

    assert_int_equal(verify_hex(keys,
        S("Test Using Larger Than Block-Size Key - Hash Key First"),
        S("60e431591ee0b67f0d8a26aacbf5b77f"
          "8e0bc6213728c5140546040f0ee37f54")), 1);

    nango_keys_free(keys);
}


static void
captures_verify(void **state)
{
    size_t         i;
    capture_t      c;
    nango_keys_t  *keys;

    keys = keys_of(CAPTURE_KEY);

    for (i = 0; i < sizeof(captures) / sizeof(captures[0]); i++) {
        c = capture(captures[i]);
        assert_int_equal(verify_hex(keys, c.body,
                             capture_header(&c, "X-Nango-Hmac-Sha256")), 1);
        free(c.memory);
    }

    nango_keys_free(keys);
}


/* sha256(key || body) is open to length extension */

static void
older_signature_fails(void **state)
{
    capture_t      c;
    nango_keys_t  *keys;

    keys = keys_of(CAPTURE_KEY);
    c = capture(captures[0]);

    assert_int_equal(verify_hex(keys, c.body,
                                capture_header(&c, "X-Nango-Signature")), 0);

    free(c.memory);
    nango_keys_free(keys);
}


static void
any_flipped_bit_of_the_body_fails(void **state)
{
    size_t          i;
    capture_t       c;
    nango_str_t     hex;
    nango_keys_t   *keys;
    unsigned char  *body;

    keys = keys_of(CAPTURE_KEY);
    c = capture(captures[0]);
    hex = capture_header(&c, "X-Nango-Hmac-Sha256");
    body = (unsigned char *) c.body.data;

    for (i = 0; i < c.body.len * 8; i++) {
        body[i / 8] ^= 1 << i % 8;
        assert_int_equal(verify_hex(keys, c.body, hex), 0);
        body[i / 8] ^= 1 << i % 8;
    }

    assert_int_equal(verify_hex(keys, c.body, hex), 1);

    free(c.memory);
    nango_keys_free(keys);
}


static void
any_flipped_bit_of_the_signature_fails(void **state)
{
    size_t         i;
    capture_t      c;
    nango_keys_t  *keys;
    unsigned char  mac[NANGO_HMAC_LEN];

    keys = keys_of(CAPTURE_KEY);
    c = capture(captures[0]);
    assert_int_equal(nango_signature_parse(
                         capture_header(&c, "X-Nango-Hmac-Sha256"), mac), 0);

    for (i = 0; i < sizeof(mac) * 8; i++) {
        mac[i / 8] ^= 1 << i % 8;
        assert_int_equal(nango_verify(keys, c.body, mac), 0);
        mac[i / 8] ^= 1 << i % 8;
    }

    assert_int_equal(nango_verify(keys, c.body, mac), 1);

    free(c.memory);
    nango_keys_free(keys);
}


static void
any_flipped_bit_of_the_key_fails(void **state)
{
    size_t         i;
    char           key[] = CAPTURE_KEY;
    capture_t      c;
    nango_str_t    hex;
    nango_keys_t  *keys;

    c = capture(captures[0]);
    hex = capture_header(&c, "X-Nango-Hmac-Sha256");

    for (i = 0; i < strlen(CAPTURE_KEY) * 8; i++) {
        key[i / 8] ^= 1 << i % 8;
        keys = nango_keys_create();
        assert_int_equal(nango_keys_add(keys,
                             nango_str(key, sizeof(key) - 1)), 0);
        assert_int_equal(verify_hex(keys, c.body, hex), 0);
        nango_keys_free(keys);
        key[i / 8] ^= 1 << i % 8;
    }

    free(c.memory);
}


static void
truncated_or_extended_body_fails(void **state)
{
    capture_t      c;
    nango_str_t    hex, body;
    nango_keys_t  *keys;

    keys = keys_of(CAPTURE_KEY);
    c = capture(captures[0]);
    hex = capture_header(&c, "X-Nango-Hmac-Sha256");

    body = c.body;
    body.len--;
    assert_int_equal(verify_hex(keys, body, hex), 0);

    body = nango_str(c.body.data - 1, c.body.len + 1);
    assert_int_equal(verify_hex(keys, body, hex), 0);

    assert_int_equal(verify_hex(keys, nango_str(NULL, 0), hex), 0);

    free(c.memory);
    nango_keys_free(keys);
}


static void
any_of_several_keys_verifies(void **state)
{
    char           key[32];
    size_t         i, n;
    capture_t      c;
    nango_str_t    hex;
    nango_keys_t  *keys;

    c = capture(captures[0]);
    hex = capture_header(&c, "X-Nango-Hmac-Sha256");

    for (n = 0; n < NANGO_KEYS_MAX; n++) {
        keys = nango_keys_create();

        for (i = 0; i < NANGO_KEYS_MAX; i++) {
            snprintf(key, sizeof(key), "other-%zu", i);
            assert_int_equal(nango_keys_add(keys,
                                 i == n ? S(CAPTURE_KEY) : Z(key)), 0);
        }

        assert_int_equal(verify_hex(keys, c.body, hex), 1);
        nango_keys_free(keys);
    }

    free(c.memory);
}


static void
none_of_several_keys_fails(void **state)
{
    capture_t      c;
    nango_keys_t  *keys;

    c = capture(captures[0]);
    keys = keys_of("one");
    assert_int_equal(nango_keys_add(keys, S("two")), 0);
    assert_int_equal(verify_hex(keys, c.body,
                         capture_header(&c, "X-Nango-Hmac-Sha256")), 0);

    free(c.memory);
    nango_keys_free(keys);
}


static void
no_key_verifies_nothing(void **state)
{
    nango_keys_t  *keys;
    unsigned char  mac[NANGO_HMAC_LEN] = { 0 };

    keys = nango_keys_create();
    assert_int_equal(nango_keys_count(keys), 0);
    assert_int_equal(nango_verify(keys, S("x"), mac), 0);
    assert_int_equal(nango_sign(keys, S("x"), mac), -1);
    nango_keys_free(keys);
}


static void
keys_have_limits(void **state)
{
    char           big[4097];
    size_t         i;
    nango_keys_t  *keys;

    memset(big, 'k', sizeof(big));
    keys = nango_keys_create();

    assert_int_equal(nango_keys_add(keys, nango_str(NULL, 0)), -1);
    assert_int_equal(nango_keys_add(keys, nango_str(big, 4097)), -1);
    assert_int_equal(nango_keys_count(keys), 0);

    for (i = 0; i < NANGO_KEYS_MAX; i++) {
        assert_int_equal(nango_keys_add(keys, nango_str(big, 4096 - i)), 0);
        assert_int_equal(nango_keys_count(keys), i + 1);
    }

    assert_int_equal(nango_keys_add(keys, S("one more")), -1);
    assert_int_equal(nango_keys_count(keys), NANGO_KEYS_MAX);

    nango_keys_free(keys);
}


static void
pieces_verify_as_the_whole(void **state)
{
    size_t           i, step, n;
    capture_t        c;
    nango_keys_t    *keys;
    nango_verify_t  *v;
    unsigned char    mac[NANGO_HMAC_LEN];

    c = capture(captures[0]);
    keys = keys_of("other");
    assert_int_equal(nango_keys_add(keys, S(CAPTURE_KEY)), 0);
    assert_int_equal(nango_signature_parse(
                         capture_header(&c, "X-Nango-Hmac-Sha256"), mac), 0);

    for (step = 1; step <= c.body.len; step += 13) {
        v = nango_verify_start(keys);
        assert_non_null(v);

        for (i = 0; i < c.body.len; i += n) {
            n = c.body.len - i < step ? c.body.len - i : step;
            assert_int_equal(nango_verify_update(v, c.body.data + i, n), 0);
            assert_int_equal(nango_verify_update(v, NULL, 0), 0);
        }

        assert_int_equal(nango_verify_finish(v, mac), 1);
    }

    free(c.memory);
    nango_keys_free(keys);
}


static void
abort_frees(void **state)
{
    nango_keys_t    *keys;
    nango_verify_t  *v;

    keys = keys_of("key");
    v = nango_verify_start(keys);
    assert_int_equal(nango_verify_update(v, "abc", 3), 0);
    nango_verify_abort(v);
    nango_verify_abort(NULL);
    nango_keys_free(keys);
    nango_keys_free(NULL);
}


static void
hex_of_either_case_is_read(void **state)
{
    size_t         i;
    unsigned char  mac[NANGO_HMAC_LEN], upper[NANGO_HMAC_LEN];

    assert_int_equal(nango_signature_parse(S(
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        mac), 0);
    assert_int_equal(nango_signature_parse(S(
        "0123456789ABCDEF0123456789aBcDeF0123456789ABCDEF0123456789ABCDEF"),
        upper), 0);
    assert_memory_equal(mac, upper, sizeof(mac));

    for (i = 0; i < sizeof(mac); i++) {
        assert_int_equal(mac[i], (0x01 + 0x22 * (i % 8)) & 0xff);
    }
}


static void
malformed_hex_is_refused_and_mac_kept(void **state)
{
    size_t         i;
    unsigned char  mac[NANGO_HMAC_LEN], before[NANGO_HMAC_LEN];

#define D16  "0123456789abcdef"
#define D62  D16 D16 D16 "0123456789abcd"

    static const nango_str_t  bad[] = {
        nango_string(""),
        nango_string(D62 "e"),                  /* 63 */
        nango_string(D62 "ef0"),                /* 65 */
        nango_string(D62 "ef" D16 D16 D16 D16),
        nango_string(D16),
        nango_string(" " D62 "e"),
        nango_string(D62 "e "),
        nango_string(" " D62 "ef"),
        nango_string(D62 "ef "),
        nango_string(D62 "ef\n"),
        nango_string(D62 "eg"),
        nango_string("g" D62 "e"),
        nango_string("0x" D62),
        nango_string(D62 "/0"),
        nango_string(D62 ":0"),
        nango_string(D62 "@0"),
        nango_string(D62 "G0"),
        nango_string(D62 "`0"),
        nango_string(D62 "\0" "0"),
        nango_string(D62 "\x10" "0"),
        nango_string(D62 "\xc1" "0"),
        nango_string("sha256=" D62 "ef")
    };

    memset(before, 0x5a, sizeof(before));
    memcpy(mac, before, sizeof(mac));

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(nango_signature_parse(bad[i], mac), -1);
        assert_memory_equal(mac, before, sizeof(mac));
    }

    assert_int_equal(nango_signature_parse(nango_str(NULL, 0), mac), -1);
}


static void
signs_with_the_first_key(void **state)
{
    nango_keys_t  *keys;
    unsigned char  mac[NANGO_HMAC_LEN], hex[NANGO_HMAC_LEN * 2];

    keys = keys_of("test-webhook-signing-key");
    assert_int_equal(nango_keys_add(keys, S("test-secret-key")), 0);

    assert_int_equal(nango_sign(keys, S(SYNC_BODY), mac), 0);
    nango_hex(hex, mac, sizeof(mac));
    assert_str(nango_str(hex, sizeof(hex)),
        "ff458d4d1b72d824612760b25f0fcf8d3fdfb6dc174fe4528e78cbd35632ce24");

    assert_int_equal(nango_sign(keys, nango_str(NULL, 0), mac), 0);
    nango_hex(hex, mac, sizeof(mac));
    assert_str(nango_str(hex, sizeof(hex)),
        "1ea9c291c74b87f176729283ae2d9e266c59f610d1f83eb4d9b2c035e068321a");

    nango_keys_free(keys);
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
        unit(vectors_verify),
        unit(long_key_verifies),
        unit(captures_verify),
        unit(older_signature_fails),
        unit(any_flipped_bit_of_the_body_fails),
        unit(any_flipped_bit_of_the_signature_fails),
        unit(any_flipped_bit_of_the_key_fails),
        unit(truncated_or_extended_body_fails),
        unit(any_of_several_keys_verifies),
        unit(none_of_several_keys_fails),
        unit(no_key_verifies_nothing),
        unit(keys_have_limits),
        unit(pieces_verify_as_the_whole),
        unit(abort_frees),
        unit(hex_of_either_case_is_read),
        unit(malformed_hex_is_refused_and_mac_kept),
        unit(signs_with_the_first_key)
    };

    return cmocka_run_group_tests_name("signature", tests, NULL, NULL);
}
