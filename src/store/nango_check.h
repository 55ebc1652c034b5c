/*
 * Copyright (C) nginx-nango authors
 *
 * Whether LMDB can be let at a file.  LMDB trusts what it reads: a page size
 * of 0 is a division, a child beyond the file is SIGBUS, a node outside of its
 * page is memory that belongs to somebody else.  In a program that is there
 * for others too that is not acceptable, so the structure is read first, with
 * calls that say what went wrong.
 */

#ifndef _NANGO_CHECK_H_INCLUDED_
#define _NANGO_CHECK_H_INCLUDED_


#include <lmdb.h>
#include <stddef.h>


#define NANGO_CHECK_TEXT  96


/*
 * Before mdb_env_open(): the two pages that say where everything is.  0 if
 * they can be used or are still to be made; else errno, or MDB_CORRUPTED and
 * what it is in text.
 */
int nango_check_head(const char *path, char text[NANGO_CHECK_TEXT]);

/*
 * After it: every page that a snapshot's trees have, and the list of free
 * ones.  Of the table called much, if it is not NULL, the newest leaves only,
 * and of the others where they are.  Waits for the disk; may run beside
 * readers and writers.  Returns as above.
 */
int nango_check_pages(MDB_env *env, const char *much,
    char text[NANGO_CHECK_TEXT]);


#endif /* _NANGO_CHECK_H_INCLUDED_ */
