/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only header of the module that knows what differs between kernels, and
 * what mm/ keeps to itself.
 */
#ifndef SAMEPAGE_COMPAT_H
#define SAMEPAGE_COMPAT_H

#include <linux/ksm.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/huge_mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/static_call.h>
#include <linux/swap.h>
#include <linux/sysfs.h>

#include "compat/probed.h"

#ifdef SP_HAVE_SOFTLEAF
#include <linux/leafops.h>
#else
#include <linux/swapops.h>
#endif

/* PAGE_MAPPING_* before 6.17 */
#ifndef FOLIO_MAPPING_KSM
#define FOLIO_MAPPING_KSM	PAGE_MAPPING_KSM
#define FOLIO_MAPPING_FLAGS	PAGE_MAPPING_FLAGS
#endif

#ifdef SP_HAVE_COLLECT_CONST
#define sp_collect_const const
#else
#define sp_collect_const
#endif

/* mm/internal.h: prototypes that no public header declares. */
struct anon_vma *folio_anon_vma(sp_collect_const struct folio *folio);
struct task_struct *task_early_kill(struct task_struct *tsk, int force_early);
void add_to_kill_ksm(struct task_struct *tsk, sp_collect_const struct page *page,
		     struct vm_area_struct *vma, struct list_head *to_kill,
		     unsigned long addr);

#ifndef SP_HAVE_MM_FLAGS
static inline bool mm_flags_test(int flag, const struct mm_struct *mm)
{
	return test_bit(flag, &mm->flags);
}

static inline void mm_flags_set(int flag, struct mm_struct *mm)
{
	set_bit(flag, &mm->flags);
}

static inline void mm_flags_clear(int flag, struct mm_struct *mm)
{
	clear_bit(flag, &mm->flags);
}
#endif

#ifndef SP_HAVE_GET_ANON_VMA
void __put_anon_vma(struct anon_vma *anon_vma);

static inline void get_anon_vma(struct anon_vma *anon_vma)
{
	atomic_inc(&anon_vma->refcount);
}

static inline void put_anon_vma(struct anon_vma *anon_vma)
{
	if (atomic_dec_and_test(&anon_vma->refcount))
		__put_anon_vma(anon_vma);
}

static inline int anon_vma_trylock_read(struct anon_vma *anon_vma)
{
	return down_read_trylock(&anon_vma->root->rwsem);
}

static inline void anon_vma_lock_read(struct anon_vma *anon_vma)
{
	down_read(&anon_vma->root->rwsem);
}

static inline void anon_vma_unlock_read(struct anon_vma *anon_vma)
{
	up_read(&anon_vma->root->rwsem);
}
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

#ifndef SP_HAVE_PTE_UFFD_WP
#define pte_uffd_wp	pte_uffd
#define pte_mkuffd_wp	pte_mkuffd
#endif

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
	return is_migration_entry(leaf) ? pfn_swap_entry_folio(leaf) : NULL;
#endif
}

#ifndef SP_HAVE_ANON_RMAP_TREE
#define anon_rmap_tree_foreach(avc, anon_vma, first, last)	\
	anon_vma_interval_tree_foreach(avc, &(anon_vma)->rb_root, first, last)
#endif

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

/*
 * Resolve every shim and datum. Returns 0, or -ENOENT after naming what is
 * missing in the kernel log; nothing is changed then.
 */
int sp_symbols_resolve(void);

/* The originals behind the livepatch, entered past their fentry call. */
int sp_original_enter(struct mm_struct *mm);
void sp_original_exit(struct mm_struct *mm);

/*
 * The lock that keeps the page-table entry of @addr, or NULL where there is no
 * page table (hole, huge page). Needs mmap_lock; undone by pte_unmap_unlock().
 */
pte_t *sp_pte_lock(struct mm_struct *mm, unsigned long addr, spinlock_t **ptl);

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
	if (mm_has_notifiers(range->mm))
		__mmu_notifier_invalidate_range_end(range);
}

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

/* Account a zero page placed by KSM; its PTE must be dirty (6.12 ksm.h). */
static inline void sp_account_zero_page(struct mm_struct *mm)
{
	atomic_long_inc(sp_kernel.ksm_zero_pages);
	atomic_long_inc(&mm->ksm_zero_pages);
}

static inline long sp_zero_pages(void)
{
	return atomic_long_read(sp_kernel.ksm_zero_pages);
}

#endif
