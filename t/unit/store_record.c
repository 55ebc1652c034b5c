/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"


static nango_record_t
sample(void)
{
    nango_record_t  rec;

    memset(&rec, 0, sizeof(rec));

    rec.source = NANGO_SOURCE_REPAIR;
    rec.type = NANGO_TYPE_AUTH;
    rec.operation = NANGO_OP_OVERRIDE;
    rec.success = NANGO_SUCCESS_FALSE;
    rec.received_at = T0;
    memset(rec.hmac, 0xa5, sizeof(rec.hmac));
    rec.environment = S("prod");
    rec.type_name = S("auth");
    rec.integration = S("git\0hub");
    rec.connection_id = S("\xf0\x9f\x8c\xb5-1");
    rec.headers = S("A: b\r\nC: d\r\n");
    rec.body = S("{\"type\":\"auth\"}");
    rec.body_len = rec.body.len;

    return rec;
}


static nango_str_t
encoded(const nango_record_t *rec)
{
    size_t          len;
    unsigned char  *p;

    len = nango_record_size(rec);
    assert_int_not_equal(len, 0);

    p = malloc(len);
    assert_non_null(p);
    nango_record_encode(rec, p);

    return nango_str(p, len);
}


static void
assert_same(nango_str_t a, nango_str_t b)
{
    assert_true(nango_str_eq(a, b));
}


static void
what_is_encoded_comes_back(void **state)
{
    nango_str_t     data;
    nango_record_t  rec, out;

    rec = sample();
    data = encoded(&rec);

    assert_int_equal(nango_record_decode(&out, data), 0);

    assert_int_equal(out.source, NANGO_SOURCE_REPAIR);
    assert_int_equal(out.type, NANGO_TYPE_AUTH);
    assert_int_equal(out.operation, NANGO_OP_OVERRIDE);
    assert_int_equal(out.success, NANGO_SUCCESS_FALSE);
    assert_true(out.received_at == T0);
    assert_memory_equal(out.hmac, rec.hmac, NANGO_HMAC_LEN);
    assert_same(out.environment, rec.environment);
    assert_same(out.type_name, rec.type_name);
    assert_same(out.integration, rec.integration);
    assert_same(out.connection_id, rec.connection_id);
    assert_same(out.headers, rec.headers);
    assert_same(out.body, rec.body);
    assert_int_equal(out.body_file, 0);
    assert_true(out.body_len == rec.body.len);

    exact_free(data);
}


static void
absent_strings_stay_absent(void **state)
{
    nango_str_t     data;
    nango_record_t  rec, out;

    memset(&rec, 0, sizeof(rec));
    data = encoded(&rec);

    assert_int_equal(data.len, 72);
    assert_int_equal(nango_record_decode(&out, data), 0);
    assert_absent(out.environment);
    assert_absent(out.type_name);
    assert_absent(out.integration);
    assert_absent(out.connection_id);
    assert_absent(out.headers);
    assert_int_equal(out.body.len, 0);

    exact_free(data);
}


static void
the_layout_is_the_documented_one(void **state)
{
    nango_str_t           data;
    nango_record_t        rec;
    const unsigned char  *p;

    rec = sample();
    data = encoded(&rec);
    p = data.data;

    assert_memory_equal(p, "\x01\x01\x01\x02\x01\x00\x04\x00", 8);
    assert_memory_equal(p + 8, "\x00\x68\xe5\xcf\x8b\x01\x00\x00", 8);
    assert_memory_equal(p + 16, rec.hmac, 32);
    assert_memory_equal(p + 48, "\x04\x00\x07\x00\x06\x00\x00\x00", 8);
    assert_memory_equal(p + 56, "\x0c\x00\x00\x00\x00\x00\x00\x00", 8);
    assert_memory_equal(p + 64, "\x0f\x00\x00\x00\x00\x00\x00\x00", 8);
    assert_memory_equal(p + 72, "prodauthgit\0hub", 15);

    exact_free(data);
}


static void
a_body_file_has_a_name_and_a_length(void **state)
{
    nango_str_t     data;
    nango_record_t  rec, out;

    rec = sample();
    rec.body_file = 1;
    rec.body = S("0123456789abcdef0123456789abcdef");
    rec.body_len = UINT64_C(5000000000);
    data = encoded(&rec);

    assert_int_equal(nango_record_decode(&out, data), 0);
    assert_int_equal(out.body_file, 1);
    assert_true(out.body_len == UINT64_C(5000000000));
    assert_same(out.body, rec.body);

    exact_free(data);

    rec.body.len--;
    assert_int_equal(nango_record_size(&rec), 0);
}


static void
a_body_can_be_filled_in_later(void **state)
{
    size_t           len;
    unsigned char   *p;
    nango_record_t   rec, out;

    rec = sample();
    rec.body = nango_str(NULL, 5);

    len = nango_record_size(&rec);
    p = malloc(len);
    assert_non_null(p);
    memset(p, 'x', len);

    nango_record_encode(&rec, p);
    assert_memory_equal(p + len - 5, "xxxxx", 5);
    memcpy(p + len - 5, "later", 5);

    assert_int_equal(nango_record_decode(&out, nango_str(p, len)), 0);
    assert_str(out.body, "later");

    free(p);
}


static void
limits_are_kept(void **state)
{
    nango_record_t         rec;
    static unsigned char   big[NANGO_RECORD_BODY_MAX + 1];

    rec = sample();
    rec.body = nango_str(big, NANGO_RECORD_BODY_MAX);
    assert_int_not_equal(nango_record_size(&rec), 0);
    rec.body.len++;
    assert_int_equal(nango_record_size(&rec), 0);

    rec = sample();
    rec.headers = nango_str(big, NANGO_RECORD_HEADERS_MAX);
    assert_int_not_equal(nango_record_size(&rec), 0);
    rec.headers.len++;
    assert_int_equal(nango_record_size(&rec), 0);

    rec = sample();
    rec.environment = nango_str(big, 65535);
    assert_int_not_equal(nango_record_size(&rec), 0);
    rec.environment.len++;
    assert_int_equal(nango_record_size(&rec), 0);

    rec = sample();
    rec.type_name = nango_str(big, 65536);
    assert_int_equal(nango_record_size(&rec), 0);

    rec = sample();
    rec.integration = nango_str(big, 65536);
    assert_int_equal(nango_record_size(&rec), 0);

    rec = sample();
    rec.connection_id = nango_str(big, 65536);
    assert_int_equal(nango_record_size(&rec), 0);
}


static void
every_truncation_is_refused(void **state)
{
    size_t          len;
    nango_str_t     data, cut;
    nango_record_t  rec, out;

    rec = sample();
    data = encoded(&rec);

    for (len = 0; len < data.len; len++) {
        cut = exact(nango_str(data.data, len));
        assert_int_equal(nango_record_decode(&out, cut), -1);
        exact_free(cut);
    }

    exact_free(data);
}


static void
a_byte_too_many_is_refused(void **state)
{
    unsigned char   *p;
    nango_str_t      data;
    nango_record_t   rec, out;

    rec = sample();
    data = encoded(&rec);

    p = malloc(data.len + 1);
    assert_non_null(p);
    memcpy(p, data.data, data.len);
    p[data.len] = 0;

    assert_int_equal(nango_record_decode(&out, nango_str(p, data.len + 1)),
                     -1);

    free(p);
    exact_free(data);
}


static void
other_versions_are_unknown(void **state)
{
    nango_str_t     data;
    nango_record_t  rec, out, zero;

    memset(&zero, 0, sizeof(zero));

    rec = sample();
    data = encoded(&rec);

    ((unsigned char *) data.data)[0] = 2;
    assert_int_equal(nango_record_decode(&out, data), 1);
    assert_memory_equal(&out, &zero, sizeof(zero));

    ((unsigned char *) data.data)[0] = 0;
    assert_int_equal(nango_record_decode(&out, data), 1);

    exact_free(data);
}


/* Whatever decodes lies within the bytes that were given. */

static void
assert_within(nango_str_t s, nango_str_t data)
{
    if (s.data == NULL) {
        assert_int_equal(s.len, 0);
        return;
    }

    assert_true(s.data >= data.data
                && s.data + s.len <= data.data + data.len);
}


static void
garbage_never_reaches_outside(void **state)
{
    int             i, j, good;
    nango_str_t     data, bad;
    nango_record_t  rec, out;

    rec = sample();
    data = encoded(&rec);
    good = 0;

    for (i = 0; i < 20000; i++) {
        bad = exact(data);

        for (j = random_below(4); j >= 0; j--) {
            ((unsigned char *) bad.data)[random_below(72)] = random_below(256);
        }

        if (nango_record_decode(&out, bad) == 0) {
            assert_within(out.environment, bad);
            assert_within(out.type_name, bad);
            assert_within(out.integration, bad);
            assert_within(out.connection_id, bad);
            assert_within(out.headers, bad);
            assert_within(out.body, bad);
            good++;
        }

        exact_free(bad);
    }

    assert_true(good > 100);
    exact_free(data);
}


static nango_connection_t
sample_connection(void)
{
    nango_connection_t  c;

    memset(&c, 0, sizeof(c));

    c.key[0] = 7;
    c.status = NANGO_STATUS_INVALID;
    c.created_sequence = 11;
    c.updated_sequence = 12;
    c.created_at = 13;
    c.updated_at = 14;
    c.status_since = 15;
    c.checked_at = 16;
    c.repeats = 17;
    memset(c.creation_hmac, 0x5a, NANGO_HMAC_LEN);
    c.environment = S("prod");
    c.integration = S("github");
    c.connection_id = S("one");
    c.provider = S("github-app");
    c.error_type = S("refresh");
    c.error_text = S("it\nfailed");
    c.tags[0].name = S("end_user_id");
    c.tags[0].value = S("42");
    c.tags[1].name = S("organization_id");
    c.tags[1].value = S("acme");
    c.ntags = 2;

    return c;
}


static nango_str_t
encoded_connection(const nango_connection_t *c)
{
    size_t          len;
    unsigned char  *p;

    len = nango_connection_size(c);
    assert_int_not_equal(len, 0);

    p = malloc(len);
    assert_non_null(p);
    nango_connection_encode(c, p);

    return nango_str(p, len);
}


static void
a_connection_comes_back(void **state)
{
    nango_str_t         data;
    nango_connection_t  c, out;

    c = sample_connection();
    data = encoded_connection(&c);

    assert_int_equal(nango_connection_decode(&out, c.key, data), 0);

    assert_memory_equal(out.key, c.key, NANGO_KEY_LEN);
    assert_int_equal(out.status, NANGO_STATUS_INVALID);
    assert_sequence(out.created_sequence, 11);
    assert_sequence(out.updated_sequence, 12);
    assert_sequence(out.created_at, 13);
    assert_sequence(out.updated_at, 14);
    assert_sequence(out.status_since, 15);
    assert_sequence(out.checked_at, 16);
    assert_sequence(out.repeats, 17);
    assert_memory_equal(out.creation_hmac, c.creation_hmac, NANGO_HMAC_LEN);
    assert_str(out.environment, "prod");
    assert_str(out.integration, "github");
    assert_str(out.connection_id, "one");
    assert_str(out.provider, "github-app");
    assert_str(out.error_type, "refresh");
    assert_str(out.error_text, "it\nfailed");
    assert_int_equal(out.ntags, 2);
    assert_str(out.tags[0].name, "end_user_id");
    assert_str(out.tags[0].value, "42");
    assert_str(out.tags[1].name, "organization_id");
    assert_str(out.tags[1].value, "acme");

    exact_free(data);
}


static void
the_layout_of_a_connection_is_the_documented_one(void **state)
{
    nango_str_t           data;
    nango_connection_t    c;
    const unsigned char  *p;

    c = sample_connection();
    data = encoded_connection(&c);
    p = data.data;

    assert_memory_equal(p, "\x01\x02\x02\x00\x00\x00\x00\x00", 8);
    assert_memory_equal(p + 8, "\x0b\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0", 16);
    assert_memory_equal(p + 56, "\x11\0\0\0\0\0\0\0", 8);
    assert_memory_equal(p + 64, c.creation_hmac, 32);
    assert_memory_equal(p + 96, "\x04\0\x06\0\x03\0\x0a\0\x07\0\x09\0", 12);
    assert_memory_equal(p + 108, "\0\0\0\0prodgithubone", 17);
    assert_memory_equal(p + data.len - 23, "\x0f\0\x04\0organization_id", 19);

    exact_free(data);
}


static void
every_truncation_of_a_connection_is_refused(void **state)
{
    size_t              len;
    nango_str_t         data, cut;
    nango_connection_t  c, out;

    c = sample_connection();
    data = encoded_connection(&c);

    for (len = 0; len < data.len; len++) {
        cut = exact(nango_str(data.data, len));
        assert_int_equal(nango_connection_decode(&out, c.key, cut), -1);
        exact_free(cut);
    }

    exact_free(data);
}


static void
a_connection_of_another_shape_is_refused(void **state)
{
    unsigned char       *p;
    nango_str_t          data;
    nango_connection_t   c, out;

    c = sample_connection();
    data = encoded_connection(&c);
    p = (unsigned char *) data.data;

    p[0] = 2;
    assert_int_equal(nango_connection_decode(&out, c.key, data), 1);
    p[0] = 1;

    p[1] = 0;
    assert_int_equal(nango_connection_decode(&out, c.key, data), -1);
    p[1] = 4;
    assert_int_equal(nango_connection_decode(&out, c.key, data), -1);
    p[1] = 1;
    assert_int_equal(nango_connection_decode(&out, c.key, data), 0);

    /* one tag less than there are bytes for, and more than there can be */

    p[2] = 1;
    assert_int_equal(nango_connection_decode(&out, c.key, data), -1);
    p[2] = NANGO_EVENT_TAGS_MAX + 1;
    assert_int_equal(nango_connection_decode(&out, c.key, data), -1);
    p[2] = 2;
    p[3] = 1;
    assert_int_equal(nango_connection_decode(&out, c.key, data), -1);

    exact_free(data);

    c.ntags = NANGO_EVENT_TAGS_MAX + 1;
    assert_int_equal(nango_connection_size(&c), 0);
}


static void
garbage_in_a_connection_never_reaches_outside(void **state)
{
    int                 i, j, good;
    size_t              n;
    nango_str_t         data, bad;
    nango_connection_t  c, out;

    c = sample_connection();
    data = encoded_connection(&c);
    good = 0;

    for (i = 0; i < 20000; i++) {
        bad = exact(data);

        for (j = random_below(3); j >= 0; j--) {
            ((unsigned char *) bad.data)[random_below(data.len)] =
                                                             random_below(256);
        }

        if (nango_connection_decode(&out, c.key, bad) == 0) {
            assert_within(out.environment, bad);
            assert_within(out.error_text, bad);

            for (n = 0; n < out.ntags; n++) {
                assert_within(out.tags[n].name, bad);
                assert_within(out.tags[n].value, bad);
            }

            good++;
        }

        exact_free(bad);
    }

    assert_true(good > 100);
    exact_free(data);
}


#define unit(f)  cmocka_unit_test(f)


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(what_is_encoded_comes_back),
        unit(absent_strings_stay_absent),
        unit(the_layout_is_the_documented_one),
        unit(a_body_file_has_a_name_and_a_length),
        unit(a_body_can_be_filled_in_later),
        unit(limits_are_kept),
        unit(every_truncation_is_refused),
        unit(a_byte_too_many_is_refused),
        unit(other_versions_are_unknown),
        unit(garbage_never_reaches_outside),
        unit(a_connection_comes_back),
        unit(the_layout_of_a_connection_is_the_documented_one),
        unit(every_truncation_of_a_connection_is_refused),
        unit(a_connection_of_another_shape_is_refused),
        unit(garbage_in_a_connection_never_reaches_outside)
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
