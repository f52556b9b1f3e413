/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stand-ins: what a kernel has not got, or has under another name, under the
 * name that the rest of the module uses. Which of them are needed, the probes
 * find out (probes/, probed.h).
 */
#ifndef SAMEPAGE_STAND_INS_H
#define SAMEPAGE_STAND_INS_H

#ifndef FOLIO_MAPPING_KSM
#define FOLIO_MAPPING_ANON	PAGE_MAPPING_ANON
#define FOLIO_MAPPING_KSM	PAGE_MAPPING_KSM
#define FOLIO_MAPPING_FLAGS	PAGE_MAPPING_FLAGS
#endif

#ifndef VM_SHADOW_STACK
#define VM_SHADOW_STACK VM_NONE
#endif

/* There is a second one where there are shadow stacks. */
#ifndef _PAGE_DIRTY_BITS
#define _PAGE_DIRTY_BITS _PAGE_DIRTY
#endif

#ifndef VM_DROPPABLE
#define VM_DROPPABLE VM_NONE
#endif

#ifdef SP_HAVE_COLLECT_CONST
#define sp_collect_const const
#else
#define sp_collect_const
#endif

#ifdef SP_HAVE_KSM_COPY_FOLIO
#define sp_copy_type struct folio
#else
#define sp_copy_type struct page
#endif

/* Without prctl() nobody sets it. The kernel uses no bit as high as this one. */
#ifndef SP_HAVE_KSM_MERGE_ANY
#define MMF_VM_MERGE_ANY 63
#endif

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

#ifndef SP_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

#ifndef SP_HAVE_VMA_START_WRITE
static inline void vma_start_write(struct vm_area_struct *vma)
{
}
#endif

#ifndef SP_HAVE_PMDP_GET
static inline pmd_t pmdp_get(pmd_t *pmd)
{
	return READ_ONCE(*pmd);
}

#define pmdp_get_lockless pmdp_get
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

#ifndef SP_HAVE_ANON_RMAP_TREE
#define anon_rmap_tree_foreach(avc, anon_vma, first, last)	\
	anon_vma_interval_tree_foreach(avc, &(anon_vma)->rb_root, first, last)
#endif

#ifndef SP_HAVE_FOLIO_RMAP
static inline void folio_add_anon_rmap_pte(struct folio *folio, struct page *page,
					   struct vm_area_struct *vma,
					   unsigned long addr, rmap_t flags)
{
	page_add_anon_rmap(page, vma, addr, flags);
}

static inline void folio_remove_rmap_pte(struct folio *folio, struct page *page,
					 struct vm_area_struct *vma)
{
	page_remove_rmap(page, vma, false);
}

static inline int folio_try_share_anon_rmap_pte(struct folio *folio,
						struct page *page)
{
	return page_try_share_anon_rmap(page);
}
#endif

#ifndef SP_HAVE_PTE_UFFD_WP
#define pte_uffd_wp	pte_uffd
#define pte_mkuffd_wp	pte_mkuffd
#endif

#ifndef SP_HAVE_ENDBR_UNDERSCORED
#define __is_endbr is_endbr
#endif

#endif
