/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_nango_removed.h.  What a subscriber is owed is kept when it is gone
 * from the configuration, since that may be a mistake, and nothing of it is
 * pruned.  So somebody has to be told, or the log grows until it is full.
 */

#include "ngx_nango_removed.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_store.h"

#include "nango_delivery.h"


#define NGX_NANGO_REMOVED_LOOK  500     /* ms */


typedef struct {
    ngx_nango_subscriber_t   **subscribers;
    ngx_uint_t                 n;
    ngx_event_t                event;
} ngx_nango_removed_t;


static void ngx_nango_removed_handler(ngx_event_t *ev);
static void ngx_nango_removed_visit(void *data, const nango_ledger_t *ledger);


static ngx_nango_removed_t  ngx_nango_removed;

static ngx_connection_t     ngx_nango_removed_dummy;


void
ngx_nango_removed_init(ngx_cycle_t *cycle,
    ngx_nango_subscriber_t **subscribers, ngx_uint_t n)
{
    ngx_nango_removed_t  *rm;

    if (!ngx_nango_generation_first()) {
        return;
    }

    rm = &ngx_nango_removed;

    ngx_nango_removed_dummy.fd = (ngx_socket_t) -1;

    rm->subscribers = subscribers;
    rm->n = n;

    rm->event.handler = ngx_nango_removed_handler;
    rm->event.data = &ngx_nango_removed_dummy;
    rm->event.log = cycle->log;
    rm->event.cancelable = 1;

    ngx_add_timer(&rm->event, NGX_NANGO_REMOVED_LOOK);
}


void
ngx_nango_removed_exit(void)
{
    if (ngx_nango_removed.event.timer_set) {
        ngx_del_timer(&ngx_nango_removed.event);
    }
}


static void
ngx_nango_removed_handler(ngx_event_t *ev)
{
    int             rc;
    nango_error_t   err;
    nango_reader_t  *reader;

    reader = ngx_nango_store_snapshot();

    if (reader == NULL) {
        ngx_add_timer(ev, NGX_NANGO_REMOVED_LOOK);
        return;
    }

    rc = nango_reader_ledgers(reader, ngx_nango_removed_visit,
                              &ngx_nango_removed, &err);

    nango_reader_end(reader);

    if (rc != 0) {
        ngx_nango_store_unreadable(&err);
    }
}


static void
ngx_nango_removed_visit(void *data, const nango_ledger_t *ledger)
{
    ngx_nango_removed_t *rm = data;

    ngx_str_t   environment, name;
    ngx_uint_t  i;

    for (i = 0; i < rm->n; i++) {
        if (ngx_memcmp(rm->subscribers[i]->key, ledger->key, NANGO_KEY_LEN)
            == 0)
        {
            return;
        }
    }

    environment.len = ledger->environment.len;
    environment.data = (u_char *) ledger->environment.data;
    name.len = ledger->name.len;
    name.data = (u_char *) ledger->name.data;

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "nango: subscriber \"%V\" of environment \"%V\" is no longer "
                  "in the configuration; %uL events for it are kept until it "
                  "is forgotten by hand",
                  &name, &environment, ledger->waiting + ledger->dead);
}
