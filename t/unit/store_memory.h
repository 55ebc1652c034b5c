/*
 * Copyright (C) nginx-nango authors
 *
 * What the tests share in which each allocation of the store fails once, and
 * then each system call.
 */

#ifndef _STORE_MEMORY_H_INCLUDED_
#define _STORE_MEMORY_H_INCLUDED_


#include "memory_fault.h"
#include "store_test.h"


/* An error says so in words; what it is called depends on who has failed. */

static inline int
said(nango_rc_e rc)
{
    if (rc == NANGO_OK) {
        return 1;
    }

    assert_int_equal(rc, failure.code);
    assert_true(strlen(failure.text) > 0);
    failure.text[0] = '\0';
    failure.code = NANGO_OK;

    return 0;
}


static inline int
calls_make(void **state)
{
    memory_calls = 1;

    return directory_make(state);
}


static inline int
calls_remove(void **state)
{
    memory_calls = 0;

    return directory_remove(state);
}


/* Some of it is only a help, as room that is made ahead. */

static inline long
world_fail_each(memory_test_t *test)
{
    if (memory_calls) {
        test->may_do_without = 1;
    }

    return memory_fail_each(test);
}


/* As the committer does: after some errors a store has to be opened again. */

static inline void
world_recover(nango_store_t *store)
{
    if (nango_store_needs_recovery(store)) {
        store->retry_at = 0;
        assert_ok(nango_store_recover(store, &failure));
        assert_false(nango_store_needs_recovery(store));
    }
}


#define calls_unit(f)                                                         \
    cmocka_unit_test_setup_teardown(f, calls_make, calls_remove)


#endif /* _STORE_MEMORY_H_INCLUDED_ */
