/*
 * Copyright (C) nginx-nango authors
 *
 * Trouble that lasts is one line in the log, however many requests meet it:
 * each kind of error once, until there has been none for two seconds.  One
 * thread at a time uses one of these.
 */

#ifndef _NGX_NANGO_TROUBLE_H_INCLUDED_
#define _NGX_NANGO_TROUBLE_H_INCLUDED_


#include "ngx_nango.h"

#include "nango_store.h"


#define NGX_NANGO_CALM  2000        /* ms */


typedef struct {
    ngx_uint_t  kinds;              /* that were told; 0: none */
    uint64_t    last;               /* us */
} ngx_nango_trouble_t;


/* Notes an error.  1: it is to be told. */

static ngx_inline ngx_uint_t
ngx_nango_trouble(ngx_nango_trouble_t *t, nango_rc_e rc)
{
    ngx_uint_t  kind;

    /* The same for who reads it. */

    kind = (ngx_uint_t) 1 << (rc == NANGO_EWRECKED ? NANGO_EBROKEN : rc);

    t->last = ngx_nango_ticks();

    if (t->kinds & kind) {
        return 0;
    }

    t->kinds |= kind;

    return 1;
}


/* Something has worked.  1: that is to be told. */

static ngx_inline ngx_uint_t
ngx_nango_trouble_over(ngx_nango_trouble_t *t)
{
    if (t->kinds == 0
        || ngx_nango_ticks() - t->last < NGX_NANGO_CALM * 1000)
    {
        return 0;
    }

    t->kinds = 0;

    return 1;
}


#endif /* _NGX_NANGO_TROUBLE_H_INCLUDED_ */
