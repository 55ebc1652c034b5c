/*
 * Copyright (C) nginx-nango authors
 *
 * Events of our own: what Nango's API has told us, and what was done here.
 * They take the way of a webhook through the log, signed like one, since
 * nothing else changes a connection.
 */

#ifndef _NGX_NANGO_EVENT_H_INCLUDED_
#define _NGX_NANGO_EVENT_H_INCLUDED_


#include "ngx_nango_store.h"

#include "nango_record.h"


/*
 * A job that is ready to be submitted once its handler is set; NULL if there
 * is no memory or no key to sign with.  Nothing of event is referred to.
 */
ngx_nango_job_t *ngx_nango_event_job(ngx_nango_environment_t *env,
    nango_source_e source, const nango_event_t *event);


#endif /* _NGX_NANGO_EVENT_H_INCLUDED_ */
