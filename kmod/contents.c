// SPDX-License-Identifier: GPL-2.0-only
/*
 * Contents that all domains share: pages of a distribution's libraries, for one, which are
 * nobody's secret. An administrator names them by having them in memory.
 *
 * A page of such a content is merged under the number SP_EVERYBODY in place of its
 * domain's, and at once, as a timing-safe page is: so there are candidates of single domains
 * only. Before its first equal comes, it moves to a frame that is chosen at random.
 *
 * What is known of each is its sample, to find it, and its SHA-256, to tell that it is the one:
 * nobody can make another page, whose equal somebody may have, look like it. Both are
 * looked at again when the page can change no more, and when a fork brings one along.
 *
 * Timing-safe domains take no part: that a library is used is known by the time of a write.
 *
 * The table is replaced as a whole with sp_scan_lock held for writing; scanners hold it for
 * reading. When there are none any more, sp_contents_epoch moves on: whoever has a space of
 * before in hand sees to it that it shares none. Whatever has no record of it, a fork's, is
 * found by the scanner.
 */
#include <crypto/sha2.h>
#include <linux/bitmap.h>
#include <linux/capability.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "samepage.h"
#include "contents.h"
#include "samepage_abi.h"

#define SP_CONTENTS_MAX		BIT(18)
#define SP_CONTENTS_AT_ONCE	BIT(14)
#define SP_FILTER_BITS		20

struct sp_content {
	u64 sample;
	u8 digest[SHA256_DIGEST_SIZE];
};

struct sp_contents {
	DECLARE_BITMAP(filter, BIT(SP_FILTER_BITS));	/* by the sample's upper bits */
	unsigned int count;
	struct sp_content content[];			/* in order */
};

struct sp_contents *sp_contents;
u32 sp_contents_epoch;
static long sp_nr_contents;
static DEFINE_MUTEX(sp_contents_mutex);			/* one changes them at a time */

static int sp_content_order(const void *a, const void *b)
{
	const struct sp_content *one = a, *other = b;

	if (one->sample != other->sample)
		return one->sample < other->sample ? -1 : 1;
	return memcmp(one->digest, other->digest, sizeof(one->digest));
}

static void sp_content_of(struct sp_content *content, struct page *page, u64 sample)
{
	void *bytes = kmap_local_page(page);

	content->sample = sample;
	sha256(bytes, PAGE_SIZE, content->digest);
	kunmap_local(bytes);
}

/* The first content that has this sample, or where it would be. */
static unsigned int sp_content_place(const struct sp_contents *contents, u64 sample)
{
	unsigned int from = 0, to = contents->count;

	while (from < to) {
		unsigned int middle = from + (to - from) / 2;

		if (contents->content[middle].sample < sample)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

/* Is this content for all? */
bool sp_is_common(struct page *page, u64 sample)
{
	const struct sp_contents *contents = sp_contents;
	struct sp_content content;
	unsigned int at;

	if (!contents || !test_bit(sample >> (64 - SP_FILTER_BITS), contents->filter))
		return false;
	at = sp_content_place(contents, sample);
	if (at == contents->count || contents->content[at].sample != sample)
		return false;
	for (sp_content_of(&content, page, sample);
	     at < contents->count && contents->content[at].sample == sample; at++)
		if (!sp_content_order(&contents->content[at], &content))
			return true;
	return false;
}

static struct sp_contents *sp_contents_alloc(unsigned int room)
{
	return kvzalloc(struct_size(sp_contents, content, room), GFP_KERNEL | __GFP_NOWARN);
}

/* Read @count pages from @start on, of the current process; empty ones are no content. 0 or an errno. */
static int sp_contents_read(struct sp_contents *to, const void __user *start, unsigned int count)
{
	struct page *page = alloc_page(GFP_KERNEL);
	int err = page ? 0 : -ENOMEM;

	for (; !err && count; count--, start += PAGE_SIZE) {
		if (copy_from_user(page_address(page), start, PAGE_SIZE))
			err = -EFAULT;
		else if (fatal_signal_pending(current))
			err = -EINTR;
		else if (memchr_inv(page_address(page), 0, PAGE_SIZE))
			sp_content_of(&to->content[to->count++], page, sp_sample(page));
		cond_resched();
	}
	if (page)
		__free_page(page);
	return err;
}

static void sp_contents_append(struct sp_contents *to, const struct sp_content *content)
{
	to->content[to->count++] = *content;
	__set_bit(content->sample >> (64 - SP_FILTER_BITS), to->filter);
}

/* Those of @some, which are in no order, and those of @have, which are (or NULL), each once. An ERR_PTR. */
static struct sp_contents *sp_contents_union(struct sp_contents *some, const struct sp_contents *have)
{
	unsigned int nr_have = have ? have->count : 0, i = 0, j = 0;
	struct sp_contents *all = sp_contents_alloc(some->count + nr_have);

	if (!all)
		return ERR_PTR(-ENOMEM);
	sort(some->content, some->count, sizeof(some->content[0]), sp_content_order, NULL);
	while (i < some->count || j < nr_have) {
		const struct sp_content *next;

		if (j == nr_have ||
		    (i < some->count && sp_content_order(&some->content[i], &have->content[j]) < 0))
			next = &some->content[i++];
		else
			next = &have->content[j++];
		if (!all->count || sp_content_order(&all->content[all->count - 1], next))
			sp_contents_append(all, next);
	}
	if (all->count > SP_CONTENTS_MAX) {
		kvfree(all);
		return ERR_PTR(-ENOSPC);
	}
	return all;
}

/* Those that there are, and @count more from @start on; an ERR_PTR. */
static struct sp_contents *sp_contents_with(const void __user *start, unsigned int count)
{
	struct sp_contents *all, *some = sp_contents_alloc(count);
	int err = some ? sp_contents_read(some, start, count) : -ENOMEM;

	all = err ? ERR_PTR(err) : sp_contents_union(some, sp_contents);
	kvfree(some);
	return all;
}

static void sp_contents_replace(struct sp_contents *new)
{
	struct sp_contents *old = sp_contents;

	sp_contents = new;
	WRITE_ONCE(sp_nr_contents, new ? new->count : 0);
	kvfree(old);
}

/*
 * The pages of a stretch of the current process's memory are for all from now on. 0 or an
 * errno: -EPERM, -EINVAL; -E2BIG: more than SP_CONTENTS_AT_ONCE; -ENOSPC: there would be too
 * many; -EFAULT, -ENOMEM, -EINTR.
 */
int sp_contents_add(struct samepage_contents *asked)
{
	struct sp_contents *new;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (asked->start >= asked->end || !PAGE_ALIGNED(asked->start | asked->end))
		return -EINVAL;
	if ((asked->end - asked->start) >> PAGE_SHIFT > SP_CONTENTS_AT_ONCE)
		return -E2BIG;
	if (mutex_lock_killable(&sp_contents_mutex))
		return -EINTR;
	new = sp_contents_with(u64_to_user_ptr(asked->start),
			       (asked->end - asked->start) >> PAGE_SHIFT);
	if (!IS_ERR(new)) {
		sp_scan_lock_all();
		sp_contents_replace(new);
		sp_scan_reexamine();
		up_write(&sp_scan_lock);
	}
	mutex_unlock(&sp_contents_mutex);
	return PTR_ERR_OR_ZERO(new);
}

/* One block of a space, which is in hand, shares nothing with all any more. 0 or an errno. */
static int sp_contents_leave_block(struct sp_block *block)
{
	unsigned int index;
	int err = 0;

	for (index = 0; !err && index < SP_BLOCK_PAGES; index++) {
		if (!(block->sharers & sp_bit(index)) ||
		    block->slot[index].item->stable->key.domain != SP_EVERYBODY)
			continue;
		/* Should there be no memory for a copy, it is of no record, and refused. */
		sp_slot_unfile(block, index);
		err = sp_break_cow(block->owner->mm, sp_slot_address(block, index));
	}
	return err;
}

/*
 * A space, which is in hand, shares nothing that was for all before the table was emptied.
 * 0, -ENOMEM or -ERESTARTSYS: it may yet.
 */
int sp_contents_leave(struct sp_space *space)
{
	struct sp_block *block;
	unsigned long at;
	int err = 0;

	sp_records_lock(space);
	xa_for_each(&space->blocks, at, block) {
		if (block->sharers)
			err = sp_contents_leave_block(block);
		if (err)
			break;
		cond_resched();
	}
	if (!err)
		space->contents_epoch = sp_contents_epoch;
	sp_records_unlock(space);
	return err;
}

/* The same for all of them; what could not be done the scanner does. Needs sp_scan_lock for writing. */
static int sp_contents_leave_all(void)
{
	struct sp_space *space;
	int err = 0;

	sp_scan_reset();
	sp_registry_begin();
	while (!err && (space = sp_registry_take())) {
		err = sp_contents_leave(space);
		sp_registry_done(space, SP_KEEP);
		cond_resched();
	}
	sp_registry_end();
	return err;
}

/*
 * None are any more: who shared them finds its own again. 0 or an errno: -EPERM, -EINTR, or
 * -ENOMEM or -ERESTARTSYS when that could not be done at once: the scanner goes on with it.
 */
int sp_contents_clear(void)
{
	int err = 0;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (mutex_lock_killable(&sp_contents_mutex))
		return -EINTR;
	if (sp_contents) {
		sp_scan_lock_all();
		sp_contents_replace(NULL);
		sp_contents_epoch++;
		set_current_oom_origin();
		err = sp_contents_leave_all();
		clear_current_oom_origin();
		up_write(&sp_scan_lock);
	}
	mutex_unlock(&sp_contents_mutex);
	return err;
}

/* Without the lock: a number of before or after a change. */
long sp_contents_count(void)
{
	return READ_ONCE(sp_nr_contents);
}

size_t sp_contents_bytes(void)
{
	long count = sp_contents_count();

	return count ? struct_size(sp_contents, content, count) : 0;
}

void sp_contents_destroy(void)
{
	sp_contents_replace(NULL);
}
