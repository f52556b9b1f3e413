/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only header of the module that knows what differs between kernels, and
 * what mm/ keeps to itself.
 */
#ifndef SAMEPAGE_COMPAT_H
#define SAMEPAGE_COMPAT_H

#include <linux/ksm.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/huge_mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/shrinker.h>
#include <linux/static_call.h>
#include <linux/swap.h>
#include <linux/sysfs.h>

#include "compat/probed.h"

#ifndef SP_HAVE_KSM_MERGE_ANY
#include <linux/binfmts.h>
#include <linux/perf_event.h>
#include <linux/security.h>
#endif

#ifdef SP_HAVE_SOFTLEAF
#include <linux/leafops.h>
#else
#include <linux/swapops.h>
#endif

#include "compat/stand_ins.h"
#include "compat/trace.h"

/* mm/internal.h and what headers hide from modules: prototypes of our own. */
void flush_tlb_mm_range(struct mm_struct *mm, unsigned long start, unsigned long end,
			unsigned int stride_shift, bool freed_tables);
struct anon_vma *folio_anon_vma(sp_collect_const struct folio *folio);
struct task_struct *task_early_kill(struct task_struct *tsk, int force_early);
void add_to_kill_ksm(struct task_struct *tsk, sp_collect_const struct page *page,
		     struct vm_area_struct *vma, struct list_head *to_kill,
		     unsigned long addr);

#ifdef SP_HAVE_MIGRATE_FOLIO
bool folio_isolate_lru(struct folio *folio);
#else
int folio_isolate_lru(struct folio *folio);
#endif

/* A small page for @addr; NULL without memory. */
static inline struct folio *sp_vma_alloc_page(struct vm_area_struct *vma,
					      unsigned long addr)
{
#ifdef SP_HAVE_VMA_ALLOC_HUGEPAGE
	return vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, vma, addr, false);
#else
	return vma_alloc_folio(GFP_HIGHUSER_MOVABLE, 0, vma, addr);
#endif
}

/* The folio that a migration entry stands for, NULL for any other entry. */
static inline struct folio *sp_migrating_folio(pte_t entry)
{
#ifdef SP_HAVE_SOFTLEAF
	softleaf_t leaf = softleaf_from_pte(entry);

	return softleaf_is_migration(leaf) ? softleaf_to_folio(leaf) : NULL;
#else
	swp_entry_t leaf;

	if (pte_none(entry) || pte_present(entry))
		return NULL;
	leaf = pte_to_swp_entry(entry);
	if (!is_migration_entry(leaf))
		return NULL;
#ifdef SP_HAVE_PFN_SWAP_ENTRY_FOLIO
	return pfn_swap_entry_folio(leaf);
#else
	return page_folio(pfn_swap_entry_to_page(leaf));
#endif
#endif
}

/* The type of kallsyms_lookup_name(), which no header for modules declares. */
unsigned long sp_kallsyms_lookup_name(const char *name);

/* Data that is not exported, found at load. */
struct sp_kernel_data {
	struct attribute_group *ksm_attr_group;
	atomic_long_t *ksm_zero_pages;
	struct kobject *mm_kobj;
};

extern struct sp_kernel_data sp_kernel;

/* 0, or -EOPNOTSUPP for a kernel that the module was never tested on. */
int sp_kernel_check(void);

/* The address of a symbol of the kernel; NULL after naming it in the kernel log. */
void *sp_lookup(const char *name);

/*
 * Resolve every shim and datum. Returns 0, or -ENOENT after naming what is
 * missing in the kernel log; nothing is changed then.
 */
int sp_symbols_resolve(void);

/* The originals behind the livepatch, entered past their fentry call. */
int sp_original_enter(struct mm_struct *mm);
void sp_original_exit(struct mm_struct *mm);
#ifndef SP_HAVE_KSM_MERGE_ANY
int sp_original_task_prctl(int option, unsigned long arg2, unsigned long arg3,
			   unsigned long arg4, unsigned long arg5);
int sp_original_begin_new_exec(struct linux_binprm *bprm);
void sp_original_mmap_event(struct vm_area_struct *vma);

/* prctl.c */
int sp_hook_task_prctl(int option, unsigned long arg2, unsigned long arg3,
		       unsigned long arg4, unsigned long arg5);
int sp_hook_begin_new_exec(struct linux_binprm *bprm);
void sp_hook_mmap_event(struct vm_area_struct *vma);

/* fork copies the flags of a process that the kernel knows alone. */
static inline bool sp_inherits_merge_any(const struct mm_struct *mm)
{
	return current->mm && current->mm != mm &&
	       test_bit(MMF_VM_MERGE_ANY, &current->mm->flags);
}

/* Nothing but its record tells us of its forks and of the end of our hooks. */
static inline bool sp_stays_registered(struct mm_struct *mm)
{
	return mm_flags_test(MMF_VM_MERGE_ANY, mm);
}

/* In-tree KSM knows nothing of it. */
static inline void sp_return_merge_any(struct mm_struct *mm, bool any)
{
	mm_flags_clear(MMF_VM_MERGE_ANY, mm);
}
#else
static inline bool sp_stays_registered(struct mm_struct *mm)
{
	return false;
}

static inline void sp_return_merge_any(struct mm_struct *mm, bool any)
{
	if (any)
		mm_flags_set(MMF_VM_MERGE_ANY, mm);
}

static inline bool sp_inherits_merge_any(const struct mm_struct *mm)
{
	return false;
}
#endif

/*
 * The lock that keeps the page-table entry of @addr, or NULL where there is no
 * page table (hole, huge page). Needs mmap_lock; undone by pte_unmap_unlock().
 */
pte_t *sp_pte_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **ptl);
pte_t *sp_pte_lock_in(struct mm_struct *mm, pmd_t *pmd, unsigned long addr, spinlock_t **ptl);

/*
 * Visit every entry of a middle-level table that stands for something in
 * [@addr, @end) of @vma, with the part of it that lies there, until a visitor says
 * true: then true. Needs mmap_lock.
 */
typedef bool (*sp_pmd_visitor)(struct vm_area_struct *vma, pmd_t *pmd,
			       unsigned long addr, unsigned long end, void *arg);
bool sp_walk_pmds(struct vm_area_struct *vma, unsigned long addr, unsigned long end,
		  sp_pmd_visitor visit, void *arg);

/* Are these eight entries, of a page table of whatever level, all none? */
static __always_inline bool sp_eight_none(const void *table)
{
	const unsigned long *entries = table;
	unsigned long any = 0;
	unsigned int i;

#pragma GCC unroll 8
	for (i = 0; i < 8; i++)
		/* What comes meanwhile is for the next walk. */
		any |= data_race(entries[i]);
	return !any;
}

/*
 * The lock and the value of the huge entry that maps @addr, or NULL where there
 * is none. Needs mmap_lock; undone by spin_unlock().
 */
pmd_t *sp_pmd_lock_huge(struct mm_struct *mm, unsigned long addr,
			spinlock_t **ptl, pmd_t *entry);

/*
 * As mmu_notifier_invalidate_range_start()/_end(), whose inline forms refer to
 * an unexported lockdep map on debug kernels.
 */
static inline void sp_notifiers_start(struct mmu_notifier_range *range)
{
	might_sleep();
	if (mm_has_notifiers(range->mm)) {
		range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
		__mmu_notifier_invalidate_range_start(range);
	}
}

static inline void sp_notifiers_end(struct mmu_notifier_range *range)
{
	if (!mm_has_notifiers(range->mm))
		return;
#ifdef SP_HAVE_NOTIFIER_ONLY_END
	__mmu_notifier_invalidate_range_end(range, false);
#else
	__mmu_notifier_invalidate_range_end(range);
#endif
}

static inline void sp_notifiers_init(struct mmu_notifier_range *range,
				     struct vm_area_struct *vma, unsigned long addr)
{
#ifdef SP_HAVE_NOTIFIER_VMA
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, 0, vma, vma->vm_mm, addr,
				addr + PAGE_SIZE);
#else
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, 0, vma->vm_mm, addr,
				addr + PAGE_SIZE);
#endif
}

static inline void sp_flush_tlb(struct mm_struct *mm, unsigned long start,
				unsigned long end)
{
	flush_tlb_mm_range(mm, start, end, PAGE_SHIFT, false);
}

/* migrate.c */
bool sp_move_folio(struct folio *folio, struct page *(*get)(int nid));

/* shrinker.c: asked when memory is short. */
typedef unsigned long sp_shrink_function(struct shrinker *shrinker, struct shrink_control *control);
int sp_shrinker_register(sp_shrink_function *count, sp_shrink_function *scan);
void sp_shrinker_unregister(void);

/* A folio's link to its stable node, kept in its mapping field. */
static inline void *sp_folio_ksm_mapping(const void *stable)
{
	return (void *)((unsigned long)stable | FOLIO_MAPPING_KSM);
}

static inline void *sp_folio_stable(const struct folio *folio)
{
	unsigned long mapping = (unsigned long)READ_ONCE(folio->mapping);

	if ((mapping & FOLIO_MAPPING_FLAGS) != FOLIO_MAPPING_KSM)
		return NULL;
	return (void *)(mapping & ~FOLIO_MAPPING_FLAGS);
}

/*
 * Zero pages placed by KSM are told apart by a dirty entry. Kernels that know
 * them count them down themselves, and replace them where sharing is to end; on
 * others we count (zero.c), and a write has to be feigned.
 */
#ifdef SP_HAVE_KSM_ZERO_PAGES
#define SP_UNSHARE_ZERO FAULT_FLAG_UNSHARE

static inline void sp_count_zero_page(struct mm_struct *mm)
{
	atomic_long_inc(sp_kernel.ksm_zero_pages);
	atomic_long_inc(&mm->ksm_zero_pages);
}

static inline bool sp_zero_pte(pte_t entry)
{
	return is_ksm_zero_pte(entry);
}

static inline long sp_zero_pages(void)
{
	return atomic_long_read(sp_kernel.ksm_zero_pages);
}

static inline long sp_mm_zero_pages(struct mm_struct *mm)
{
	return mm_ksm_zero_pages(mm);
}
#else
#define SP_UNSHARE_ZERO FAULT_FLAG_WRITE

int proc_pid_ksm_stat(struct seq_file *m, struct pid_namespace *ns, struct pid *pid,
		      struct task_struct *task);

static inline void sp_count_zero_page(struct mm_struct *mm)
{
}

static inline bool sp_zero_pte(pte_t entry)
{
	return pte_present(entry) && is_zero_pfn(pte_pfn(entry)) && pte_dirty(entry);
}

long sp_zero_pages(void);
long sp_mm_zero_pages(struct mm_struct *mm);
int sp_hook_ksm_stat(struct seq_file *m, struct pid_namespace *ns, struct pid *pid,
		     struct task_struct *task);
#endif

static inline pte_t sp_mk_zero_pte(pte_t entry, struct mm_struct *mm)
{
	sp_count_zero_page(mm);
	return pte_mkdirty(pte_mkspecial(entry));
}

#endif
