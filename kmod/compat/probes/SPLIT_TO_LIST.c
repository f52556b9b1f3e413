// SPDX-License-Identifier: GPL-2.0-only
/* What split_huge_page() calls */
#include <linux/mm.h>
#include <linux/huge_mm.h>
int probe(struct page *page);
int probe(struct page *page)
{
	return split_huge_page_to_list(page, NULL);
}
