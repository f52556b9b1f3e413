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

/* mm/internal.h: prototypes that no public header declares. */
struct anon_vma *folio_anon_vma(struct folio *folio);
struct task_struct *task_early_kill(struct task_struct *tsk, int force_early);
void add_to_kill_ksm(struct task_struct *tsk, struct page *page,
		     struct vm_area_struct *vma, struct list_head *to_kill,
		     unsigned long addr);

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
	return (void *)((unsigned long)stable | PAGE_MAPPING_KSM);
}

static inline void *sp_folio_stable(struct folio *folio)
{
	unsigned long mapping = (unsigned long)READ_ONCE(folio->mapping);

	if ((mapping & PAGE_MAPPING_FLAGS) != PAGE_MAPPING_KSM)
		return NULL;
	return (void *)(mapping & ~PAGE_MAPPING_FLAGS);
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
