/*
 * Copyright (C) nginx-nango authors
 *
 * What several threads do at the same time, with one set of keys, and with
 * libcrypto as it is before its first use.  Run with BUILD=thread.
 */

#include "core_test.h"

#include "nango_event.h"
#include "nango_hash.h"
#include "nango_signature.h"

#include <pthread.h>


#define THREADS  8
#define ROUNDS   200


static nango_keys_t   *keys;
static nango_str_t     body;
static unsigned char   mac[NANGO_HMAC_LEN];
static unsigned char   ids[THREADS][NANGO_KEY_LEN];


static void *
work(void *data)
{
    int            i;
    uintptr_t      n;
    nango_event_t  ev;

    n = (uintptr_t) data;

    for (i = 0; i < ROUNDS; i++) {

        if (nango_verify(keys, body, mac) != 1
            || nango_event_parse(&ev, body) != 0)
        {
            return NULL;
        }

        if (nango_connection_key(ids[n], S("dev"), ev.integration,
                                 ev.connection_id) != 0)
        {
            nango_event_free(&ev);
            return NULL;
        }

        nango_event_free(&ev);
    }

    return data;
}


static void
threads_share_keys(void **state)
{
    void       *result;
    capture_t   c;
    uintptr_t   i;
    pthread_t   threads[THREADS];

    c = capture("apikey-creation.http");
    body = c.body;

    keys = nango_keys_create();
    assert_int_equal(nango_keys_add(keys, S("other")), 0);
    assert_int_equal(nango_keys_add(keys, S(CAPTURE_KEY)), 0);
    assert_int_equal(nango_signature_parse(
                         capture_header(&c, "X-Nango-Hmac-Sha256"), mac), 0);

    for (i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *) i),
                         0);
    }

    for (i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, (void *) i);
        assert_memory_equal(ids[i], ids[0], NANGO_KEY_LEN);
    }

    nango_keys_free(keys);
    free(c.memory);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(threads_share_keys)
    };

    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
