// SPDX-License-Identifier: GPL-2.0-only
/* Migration asks for folios */
#include <linux/migrate.h>
new_folio_t *probe(new_folio_t *get);
new_folio_t *probe(new_folio_t *get)
{
	return get;
}
