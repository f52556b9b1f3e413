// SPDX-License-Identifier: GPL-2.0-only
/* The reason for a migration has a type of its own */
#include <linux/migrate.h>
int (*probe(void))(struct list_head *, new_folio_t *, free_folio_t *, unsigned long,
		   enum migrate_mode, enum migrate_reason, unsigned int *);
int (*probe(void))(struct list_head *, new_folio_t *, free_folio_t *, unsigned long,
		   enum migrate_mode, enum migrate_reason, unsigned int *)
{
	return migrate_pages;
}
