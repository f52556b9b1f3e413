// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reserve: free memory for the day when much of what is merged is written.
 *
 * Each write to a merged page takes a page that nobody may have: what merging
 * saved was handed out to others. So a share of it can be kept back. The kernel
 * has it when it would kill for memory otherwise, a part at a time. It is filled
 * after rounds, and only with what is free anyway: never by reclaim.
 *
 * sp_reserve_lock, a spinlock under all others, covers the pages and their
 * count. What gives pages back needs nothing else, and may be called anywhere.
 */
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/spinlock.h>

#include "samepage.h"
#include "attrs.h"
#include "control.h"

/* Pages at once: that a round adds, and that the kernel has when it is in need. */
#define SP_RESERVE_STEP		1024

/* After the kernel was in need, nothing is added for so long. */
#define SP_RESERVE_PAUSE	(10 * HZ)

/* Only what lies above the low watermarks, and nobody is woken to make more. */
#define SP_RESERVE_GFP		(__GFP_NOWARN | __GFP_NOMEMALLOC)

static DEFINE_SPINLOCK(sp_reserve_lock);
static LIST_HEAD(sp_reserve);
static unsigned long sp_reserve_pages;		/* in the list */
static unsigned long sp_reserve_released;	/* to a kernel in need, ever */
static u64 sp_reserve_until;			/* nothing is added, in jiffies */
static unsigned int sp_reserve_percent;

/* Give back as many pages as that; returns how many there were. */
static unsigned long sp_reserve_give(unsigned long wanted)
{
	struct page *page, *next;
	unsigned long count = 0;
	LIST_HEAD(given);

	spin_lock(&sp_reserve_lock);
	list_for_each_entry_safe(page, next, &sp_reserve, lru) {
		if (count == wanted)
			break;
		list_move(&page->lru, &given);
		count++;
	}
	WRITE_ONCE(sp_reserve_pages, sp_reserve_pages - count);
	spin_unlock(&sp_reserve_lock);
	list_for_each_entry_safe(page, next, &given, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
	return count;
}

static void sp_reserve_add(unsigned long wanted)
{
	for (; wanted; wanted--) {
		struct page *page = alloc_page(SP_RESERVE_GFP);

		if (!page)
			return;
		spin_lock(&sp_reserve_lock);
		list_add(&page->lru, &sp_reserve);
		WRITE_ONCE(sp_reserve_pages, sp_reserve_pages + 1);
		spin_unlock(&sp_reserve_lock);
	}
}

static unsigned long sp_reserve_wanted(void)
{
	unsigned long saved = sp_stripes_sum(sharing) + sp_zero_pages();

	return mult_frac(saved, READ_ONCE(sp_reserve_percent), 100UL);
}

/* After a round of the first scanner, with sp_scan_lock. */
void sp_reserve_adjust(void)
{
	unsigned long wanted, pages = READ_ONCE(sp_reserve_pages);

	if (!READ_ONCE(sp_reserve_percent) && !pages)
		return;
	wanted = sp_reserve_wanted();
	if (pages > wanted)
		sp_reserve_give(pages - wanted);
	else if (time_after64(get_jiffies_64(), READ_ONCE(sp_reserve_until)))
		sp_reserve_add(min(wanted - pages, (unsigned long)SP_RESERVE_STEP));
}

/* Whoever unmerges everything needs it all. */
void sp_reserve_drop(void)
{
	sp_reserve_give(ULONG_MAX);
}

/* The kernel kills nobody if it gets some memory here. It asks one at a time. */
static int sp_reserve_needed(struct notifier_block *self, unsigned long unused, void *freed)
{
	unsigned long count = sp_reserve_give(SP_RESERVE_STEP);

	if (count) {
		*(unsigned long *)freed += count;
		WRITE_ONCE(sp_reserve_released, sp_reserve_released + count);
		WRITE_ONCE(sp_reserve_until, get_jiffies_64() + SP_RESERVE_PAUSE);
	}
	return NOTIFY_OK;
}

static struct notifier_block sp_reserve_notifier = {
	.notifier_call = sp_reserve_needed,
};

/*
 * For the checker: by how many pages the list and its count differ. Who is in need waits
 * meanwhile: as long as for a million pages, a few milliseconds.
 */
unsigned long sp_reserve_faults(void)
{
	const struct list_head *at;
	long missing;

	spin_lock(&sp_reserve_lock);
	missing = sp_reserve_pages;
	list_for_each(at, &sp_reserve)
		missing--;
	spin_unlock(&sp_reserve_lock);
	return abs(missing);
}

static ssize_t reserve_percent_store(struct kobject *kobj, struct kobj_attribute *attr,
				     const char *buf, size_t count)
{
	unsigned int percent;

	if (kstrtouint(buf, 10, &percent) || percent > 100)
		return -EINVAL;
	WRITE_ONCE(sp_reserve_percent, percent);
	if (!percent)
		sp_reserve_drop();
	return count;
}

SP_STORED(reserve_percent, &sp_reserve_percent, reserve_percent_store);
SP_COUNT(reserve_pages, 0400, &sp_reserve_pages);
SP_COUNT(reserve_released, 0400, &sp_reserve_released);

static struct attribute *sp_reserve_attrs[] = {
	&sp_attr_reserve_percent.attr.attr,
	&sp_attr_reserve_pages.attr.attr,
	&sp_attr_reserve_released.attr.attr,
	NULL,
};

/* Beside the others in /sys/kernel/mm/samepage. */
const struct attribute_group sp_reserve_group = {
	.name = "samepage",
	.attrs = sp_reserve_attrs,
};

int sp_reserve_init(void)
{
	return register_oom_notifier(&sp_reserve_notifier);
}

void sp_reserve_exit(void)
{
	unregister_oom_notifier(&sp_reserve_notifier);
	sp_reserve_drop();
}
