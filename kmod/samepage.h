/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * samepage: what the files of the module share.
 *
 * Terms: a *slot* keeps what is known of one virtual page. One that stayed the
 * same for a pass is a *candidate* in the unstable tree; one that is merged is a
 * *sharer* of a stable node.
 *
 * Lock order, outermost first:
 *   sp_contents_mutex who changes the contents for all
 *   sp_scan_lock      for writing: all that the module knows; for reading: a round
 *                     of one scanner, under the locks below
 *   sp_pass_mutex     the begin and the end of a pass
 *   sp_stripe.merging one page at a time looks for its twin under keys of a stripe
 *   sp_space.records  its blocks, slots and items; of two, that of the space at the
 *                     lower address first
 *   mmap_lock         of one mm at a time
 *   sp_ids_mutex      numbers of blocks that are free
 *   folio lock        of a stable node's folio: its list of sharers, its pfn
 *   page-table lock
 *   sp_stripe.lock    (a spinlock) a part of both trees
 * sp_registry_lock (a spinlock) covers the list of registered mms, tenants, and choices
 * of domains; for these, sp_scan_lock is tried within mmap_lock (explicit.c).
 */
#ifndef SAMEPAGE_H
#define SAMEPAGE_H

#include <linux/atomic.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/xarray.h>

#include "compat/compat.h"
#include "domain.h"
#include "stripes.h"
#include "timing.h"
#include "turns.h"

/* A block keeps the slots of 64 neighbouring pages, so sets of them fit a u64. */
#define SP_BLOCK_PAGES	64
#define SP_BLOCK_SHIFT	(PAGE_SHIFT + 6)
#define SP_BLOCK_SIZE	BIT(SP_BLOCK_SHIFT)
#define SP_BLOCK_MASK	(~(SP_BLOCK_SIZE - 1))

/* Which page of its block is at this address? */
static inline unsigned int sp_index(unsigned long addr)
{
	return (addr & ~SP_BLOCK_MASK) >> PAGE_SHIFT;
}

/*
 * Of a set of pages of a block. The remainder is free, and tells the compiler of a kernel
 * with UBSAN (Debian's 7.3) that there is nothing to check.
 */
static inline u64 sp_bit(unsigned int index)
{
	return 1ULL << index % SP_BLOCK_PAGES;
}

/* What orders both trees; pages of unlike domain or node never meet. */
struct sp_key {
	u64 signature;
	u16 domain;
	u16 nid;
	bool full;		/* of the whole page, not of a sample */
};

/* The domain that somebody chose for an address space, see explicit.c. */
struct sp_choice {
	enum { SP_UNCHOSEN, SP_CHOSEN, SP_CHOSEN_BY_ADMIN } by;
	u64 name;
};

/* One registered address space. */
struct sp_space {
	struct hlist_node hash;		/* sp_registry_lock */
	struct list_head list;		/* sp_registry_lock */
	bool in_hand;			/* of who walks; sp_registry_lock */
	bool in_turn;			/* of a scanner; sp_registry_lock */
	struct list_head turn;		/* of its tenant's; sp_registry_lock */
	struct sp_tenant *tenant;	/* sp_registry_lock */
	unsigned long resume;		/* all below is done in this pass; of who has it in hand */
	refcount_t refs;		/* the list's, and who looks at a page of it */
	struct sp_choice choice;	/* sp_registry_lock; to write: mmap_lock for writing, too */
	struct mm_struct *mm;		/* pinned by mmgrab */
	struct mutex records;		/* all below */
	struct xarray blocks;		/* address >> SP_BLOCK_SHIFT */
	unsigned long nr_blocks;
	unsigned long nr_seen;		/* of these, in this pass */
	struct sp_domain *home;		/* NULL until a scanner first has it in hand */
	u16 domain;			/* its number */
	bool timing_safe;		/* its domain is, whatever the others are */
	bool excluded;			/* nothing of it is merged; of who has it in hand */
	u32 contents_epoch;		/* it shares nothing of an earlier one; of who has it in hand */
	u8 pass;
};

static inline bool sp_timing_safe(const struct sp_space *space)
{
	return sp_all_timing_safe() || space->timing_safe;
}

union sp_slot {
	struct {			/* candidate */
		u32 signature;		/* sp_brief() of its key */
		u32 next;		/* page number, see unstable.c */
	};
	struct sp_item *item;		/* sharer */
};

struct sp_block {
	struct sp_space *owner;
	unsigned long base;
	u32 id;
	bool spared;			/* of a huge page that is not to be split */
	u8 seen;			/* in which pass of its owner */
	u64 tracked;			/* pages of which anything is known */
	u64 settled;			/* nothing to do until they change */
	u64 candidates;
	u64 forked;			/* candidates that others map by fork */
	u64 sharers;
	u64 shared_sum;			/* of the entries when all sharers mapped what they must; 0: unknown */
	u64 twinned;			/* of a huge page: parts that have twins */
	u8 age[SP_BLOCK_PAGES];		/* smart scan, see records.c */
	union sp_slot slot[SP_BLOCK_PAGES];
};

#define SP_PGOFF_ANY S32_MIN	/* the index is too far from the address */

/* The slot of a page. */
#define sp_slot_of(block, index) (&(block)->slot[(index) % SP_BLOCK_PAGES])

/* What the slot of a sharer points to. Changed under the folio lock. */
struct sp_item {
	u32 page;			/* its number */
	s32 pgoff_delta;		/* from address to index */
	u32 prev, next;			/* sharers, by number; 0: none */
	struct anon_vma *anon_vma;
	struct sp_stable *stable;
};

/*
 * One merged page. It holds no reference to its folio: the folio points back
 * to it for as long as it lives (see stable.c).
 */
struct sp_stable {
	struct rb_node node;
	struct sp_key key;
	unsigned long pfn;		/* 0: the folio is gone, and the node out of the tree */
	u32 sharers;			/* the first one's number */
	unsigned int nr_sharers;
	unsigned int holds;		/* of who is just going to merge */
	bool timing_safe, kept, in_place;	/* see timing.c */
	struct list_head orphan;	/* without sharers, the folio lives yet */
};

/* Tunables under /sys/kernel/mm/ksm, in-tree names and defaults. */
struct sp_tunables {
	unsigned int pages_to_scan;
	unsigned int sleep_millisecs;
	unsigned int max_page_sharing;
	unsigned int chains_prune_millisecs;
	unsigned int merge_across_nodes;
	unsigned int huge_min_twins;	/* parts with twins that are worth a split */
	bool use_zero_pages;
	bool smart_scan;
};

extern struct rw_semaphore sp_scan_lock;
extern struct sp_tunables sp_tunables;

static inline void sp_records_lock(struct sp_space *space)
{
	if (!sp_is_parallel())
		return;
	sp_count_wait(mutex_is_locked(&space->records));
	mutex_lock(&space->records);
}

static inline void sp_records_unlock(struct sp_space *space)
{
	if (sp_is_parallel())
		mutex_unlock(&space->records);
}

/* registry.c */
enum sp_fate { SP_KEEP, SP_DROP_IDLE, SP_DROP_EXITED };
void sp_registry_begin(void);
struct sp_space *sp_registry_take(void);
void sp_registry_done(struct sp_space *space, enum sp_fate fate);
void sp_registry_end(void);
void sp_space_put(struct sp_space *space);
bool sp_registry_empty(void);
unsigned int sp_registry_count(void);
void sp_registry_begin_pass(void);
struct sp_space *sp_registry_take_turn(void);
void sp_registry_set_aside(struct sp_space *space, unsigned long addr);
void sp_registry_charge(struct sp_space *space, u64 ns, unsigned int looked, unsigned int found);
int sp_registry_set_tenant(struct sp_space *space, const struct sp_tenant_name *name,
			   const struct sp_share *share);
void sp_registry_forgive(void);
unsigned int sp_registry_faults(void);
void sp_registry_show_tenants(struct seq_file *file);
bool sp_registered(struct mm_struct *mm);
struct sp_space **sp_registry_recorded(unsigned int *nr);
int sp_enter(struct mm_struct *mm, struct mm_struct *parent);
int sp_registry_choose(struct mm_struct *mm, const struct sp_choice *choice, bool admin);
struct sp_choice sp_registry_choice(struct sp_space *space);
bool sp_exit(struct mm_struct *mm);
void sp_registry_insert_ahead(bool ahead);
void sp_registry_sum_up(void);
struct sp_space *sp_registry_find(struct mm_struct *mm);
int sp_registry_init(void);
void sp_registry_destroy(void);

static inline bool sp_mm_exiting(struct mm_struct *mm)
{
	return atomic_read(&mm->mm_users) == 0;
}

/* Registered, of memory, and with anonymous pages of its own. */
static inline bool sp_vma_merges(struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_MERGEABLE | VM_PFNMAP | VM_MIXEDMAP)) ==
	       VM_MERGEABLE && vma->anon_vma;
}

/* records.c */
#define sp_for_each_block_in(space, start, end, at, block)			\
	xa_for_each_range(&(space)->blocks, at, block, (start) >> SP_BLOCK_SHIFT,	\
			  ((end) - 1) >> SP_BLOCK_SHIFT)
struct sp_block *sp_block_find(struct sp_space *space, unsigned long addr);
struct sp_block *sp_block_new(struct sp_space *space, unsigned long addr, bool huge);
bool sp_block_id_get(struct sp_block *block, gfp_t gfp);
void sp_block_id_put(struct sp_block *block);
struct sp_block *sp_known_block(u32 page);
void sp_block_ids_destroy(void);
struct sp_item *sp_item_new(struct sp_block *block, unsigned int index);
void sp_item_free(struct sp_item *item);
void sp_slot_track(struct sp_block *block, unsigned int index);
void sp_slot_changed(struct sp_block *block, unsigned int index);
bool sp_slot_skip(struct sp_block *block, unsigned int index);
void sp_slot_attach(struct sp_block *block, unsigned int index, struct sp_item *item);
void sp_slot_detach(struct sp_item *item);
void sp_slot_unfile(struct sp_block *block, unsigned int index);
void sp_slot_clear(struct sp_block *block, unsigned int index);
void sp_see_range(struct sp_space *space, unsigned long start, unsigned long end);
void sp_forget_range(struct sp_space *space, unsigned long start, unsigned long end);
void sp_forget_gap(struct sp_space *space, unsigned long start, unsigned long end);
void sp_forget_unseen(struct sp_space *space);
int sp_records_init(void);
void sp_records_destroy(void);

/* Nothing is left to do about the page until it changes. */
static inline void sp_slot_settle(struct sp_block *block, unsigned int index)
{
	block->settled |= sp_bit(index);
	block->age[index % SP_BLOCK_PAGES] = 0;
}

/* blockids.c: a table of tables, each a page. */
#define SP_LEAF_SHIFT	(PAGE_SHIFT - 3)
#define SP_LEAF_IDS	BIT(SP_LEAF_SHIFT)

union sp_id {
	struct sp_block *block;
	unsigned long next_free;
};

extern union sp_id *__rcu *sp_leaves;

/* Of a page that stays what it is meanwhile: a candidate, a sharer, one of one's own. */
static inline union sp_id *sp_id_entry(u32 id)
{
	union sp_id **leaves = rcu_dereference_raw(sp_leaves);

	return &leaves[id >> SP_LEAF_SHIFT][id & (SP_LEAF_IDS - 1)];
}

/*
 * The block in which the page of this number lies. Needs the stripe's lock or a
 * page-table lock, that the table is not replaced meanwhile.
 */
static inline struct sp_block *sp_block_of(u32 page)
{
	return sp_id_entry(page / SP_BLOCK_PAGES)->block;
}

/* The number of a page, never 0. */
static inline u32 sp_page_number(const struct sp_block *block, unsigned int index)
{
	return block->id * SP_BLOCK_PAGES + index;
}

static inline unsigned long sp_slot_address(const struct sp_block *block,
					    unsigned int index)
{
	return block->base + ((unsigned long)index << PAGE_SHIFT);
}

static inline unsigned int sp_page_index(u32 page)
{
	return page % SP_BLOCK_PAGES;
}

/* The same, of a page that stays what it is: a sharer for who has its folio locked, or one's own. */
static inline struct sp_block *sp_sharer_block(u32 page)
{
	struct sp_block *block;

	rcu_read_lock();
	block = sp_block_of(page);
	rcu_read_unlock();
	return block;
}

/* The sharer of this number, NULL for 0. Needs its stripe's lock or its folio's. */
static inline struct sp_item *sp_sharer(u32 page)
{
	return page ? sp_sharer_block(page)->slot[sp_page_index(page)].item : NULL;
}

#define sp_for_each_sharer(item, stable)				\
	for (item = sp_sharer((stable)->sharers); item; item = sp_sharer(item->next))

static inline unsigned long sp_item_address(const struct sp_item *item)
{
	return sp_slot_address(sp_sharer_block(item->page), sp_page_index(item->page));
}

/* The block was visited in this pass. */
static inline void sp_block_see(struct sp_block *block)
{
	struct sp_space *space = block->owner;

	space->nr_seen += block->seen != space->pass;
	block->seen = space->pass;
}

static inline struct mm_struct *sp_item_mm(const struct sp_item *item)
{
	return sp_sharer_block(item->page)->owner->mm;
}

/* huge.c */
bool sp_huge_worth_splitting(struct sp_space *space, unsigned long start);
void sp_huge_open(struct sp_space *space, unsigned long start, bool open);
void sp_huge_changed(struct sp_space *space, unsigned long start);
void sp_huge_count(struct sp_space *space, unsigned long start);
void sp_huge_no_more(struct sp_block *block);
void sp_huge_pass_ends(void);

/* signature.c */
u64 sp_sample(struct page *page);
u64 sp_full_signature(struct page *page);
void sp_note_crowded(u64 sample);
extern u64 sp_zero_sample;
void sp_signature_init(void);

#define SP_CROWD_BITS	20
extern unsigned long sp_crowd[];

/* Does the sample stand for several contents? */
static inline bool sp_crowded(u64 sample)
{
	return test_bit(sample >> (64 - SP_CROWD_BITS), sp_crowd);
}

static inline int sp_key_order(const struct sp_key *a, const struct sp_key *b)
{
	if (a->signature != b->signature)
		return a->signature < b->signature ? -1 : 1;
	if (a->domain != b->domain)
		return a->domain < b->domain ? -1 : 1;
	if (a->nid != b->nid)
		return a->nid < b->nid ? -1 : 1;
	return 0;
}

/* A key in 32 bits, for a candidate's slot. */
static inline u32 sp_brief(const struct sp_key *key)
{
	return upper_32_bits(key->signature) + key->nid + key->domain * 0x9e3779b1U;
}

static inline u16 sp_page_nid(unsigned long pfn)
{
	return sp_tunables.merge_across_nodes ? 0 : pfn_to_nid(pfn);
}

/* stable.c */
struct sp_stable *sp_stable_alloc(const struct sp_key *key);
void sp_stable_free_unused(struct sp_stable *stable);
void sp_stable_insert(struct sp_stable *stable);
struct sp_stable *sp_stable_find(struct sp_stripe *stripe, const struct sp_key *key);
struct sp_stable *sp_stable_first(const struct sp_key *key);
struct sp_stable *sp_stable_next(struct sp_stable *stable);
void sp_stable_put(struct sp_stable *stable);
struct sp_stable *sp_stable_after(struct sp_stripe *stripe, struct sp_stable *stable);
#define sp_for_each_stable(stable, stripe)				\
	for (stable = sp_stable_after(stripe, NULL); stable; stable = sp_stable_after(stripe, stable))
struct folio *sp_stable_folio_get(struct sp_stable *stable);
struct folio *sp_stable_folio_try(struct sp_stable *stable);
struct folio *sp_stable_folio_lock(struct sp_stable *stable);
void sp_stable_attach(struct sp_stable *stable, struct sp_item *item,
		      struct anon_vma *anon_vma, pgoff_t pgoff);
void sp_stable_detach(struct sp_item *item);
void sp_stable_prune(void);
bool sp_stable_release_all(void);
void sp_stable_forget_pfns(unsigned long start, unsigned long end);

int sp_stable_init(void);
void sp_stable_destroy(void);

/* unstable.c */
/* A candidate that was found: it may be one no more when its turn comes. */
struct sp_twin {
	struct sp_space *space;		/* with a reference */
	unsigned long addr;
	bool spared;
};

bool sp_unstable_file(struct sp_block *block, unsigned int index, u32 signature);
void sp_unstable_insert(struct sp_block *block, unsigned int index, u32 signature);
void sp_unstable_remove(struct sp_block *block, unsigned int index);
unsigned int sp_unstable_twins(u32 signature, u16 domain, struct sp_twin *twins,
			       unsigned int room, unsigned int spared);
bool sp_unstable_known(u32 signature, u16 domain);
u32 sp_unstable_bucket(const struct sp_stripe *stripe, u32 signature);
u32 sp_unstable_first(const struct sp_stripe *stripe, u32 bucket);
unsigned long sp_unstable_bytes(void);
int sp_unstable_init(void);
void sp_unstable_destroy(void);

/* merge.c */
struct vm_area_struct *sp_mergeable_vma(struct mm_struct *mm, unsigned long addr);
int sp_merge_zero(struct mm_struct *mm, unsigned long addr, void *record);
int sp_merge_into(struct sp_stable *stable, struct sp_item *item);
int sp_make_stable(struct sp_stable *stable, struct sp_item *item,
		   struct page *other);
struct page *sp_page_at(struct mm_struct *mm, unsigned long addr);
struct page *sp_hold_page(struct mm_struct *mm, unsigned long addr,
			  const struct page *other);

/* unmerge.c */
int sp_unmerge_range(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, bool process_asks);
int sp_break_cow(struct mm_struct *mm, unsigned long addr);
int sp_unmerge_mm(struct mm_struct *mm);
int sp_unmerge_registered(void);
void sp_unmerge_ignore_signals(bool ignore);

/* scan.c */
enum sp_run { SP_RUN_STOP, SP_RUN_MERGE, SP_RUN_UNMERGE };
extern unsigned long sp_run;
bool sp_has_mergeable(struct mm_struct *mm);
void sp_scan_wake(void);
void sp_scan_reexamine(void);
void sp_scan_refile_forked(void);
void sp_scan_retime(void);
void sp_scan_reset(void);
u64 sp_scan_cpu_ns(void);
int sp_scan_set_threads(unsigned int threads);
long sp_scan_threads(void);
void sp_scan_enable(bool enable);
bool sp_scan_enabled(void);
int sp_scan_start(void);
void sp_scan_stop(void);

/* hooks.c */
bool sp_flags_compatible(unsigned long vm_flags);
void sp_hook_new_mapping(struct mm_struct *mm);
int sp_hook_madvise(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end, int advice, unsigned long *vm_flags);
void sp_hook_add_vma(struct vm_area_struct *vma);
#ifdef SP_HAVE_KSM_VMA_FLAGS
vma_flags_t sp_hook_vma_flags(struct mm_struct *mm, const struct file *file,
			      vma_flags_t flags);
#endif
bool sp_hook_process_mergeable(struct mm_struct *mm);
int sp_hook_enable_merge_any(struct mm_struct *mm);
int sp_hook_disable_merge_any(struct mm_struct *mm);
int sp_hook_disable(struct mm_struct *mm);
int sp_hook_enter(struct mm_struct *mm);
void sp_hook_exit(struct mm_struct *mm);
long sp_hook_process_profit(struct mm_struct *mm);

/* rmap.c */
/*
 * Where the anon_vma keeps the mappings of a sharer: at one index, so that a
 * walk does not visit every mapping of every process forked from a common
 * parent. Unknown only where mremap() moved a mapping very far.
 */
static inline void sp_item_pgoff(const struct sp_item *item, pgoff_t *first,
				 pgoff_t *last)
{
	if (item->pgoff_delta == SP_PGOFF_ANY) {
		*first = 0;
		*last = ULONG_MAX;
	} else {
		*first = (sp_item_address(item) >> PAGE_SHIFT) + item->pgoff_delta;
		*last = *first;
	}
}

struct folio *sp_copy_if_needed(struct folio *folio, struct vm_area_struct *vma,
				unsigned long addr);
sp_copy_type *sp_hook_might_need_to_copy(sp_copy_type *page,
					 struct vm_area_struct *vma,
					 unsigned long addr);
void sp_walk_sharers(struct folio *folio, struct sp_stable *stable,
		     struct rmap_walk_control *rwc);
void sp_hook_rmap_walk(struct folio *folio, struct rmap_walk_control *rwc);
void sp_hook_migrate(struct folio *newfolio, struct folio *folio);
void sp_hook_collect_procs(sp_collect_const struct folio *folio,
			   sp_collect_const struct page *page,
			   struct list_head *to_kill, int force_early);

/* hotplug.c */
void sp_scan_lock_shared(void);
void sp_scan_lock_all(void);
bool sp_scan_is_offlining(void);
int sp_hotplug_init(void);
void sp_hotplug_exit(void);

/* intree.c */
int sp_intree_quiet(void);
void sp_intree_inherit(void);
void sp_intree_resume(void);

/* takeover.c */
extern bool sp_passthrough;
int sp_takeover(void);
void sp_adopt_all(void);

#endif
