// SPDX-License-Identifier: GPL-2.0-only
/*
 * Merging: write-protect, compare, replace.
 *
 * Each merge is one critical section under the page-table lock. The entry is
 * cleared and flushed, so that neither the process nor a fast GUP reaches the
 * page through it; a reference beyond the mappings and the swap cache means
 * that somebody holds the page (direct I/O, a pin), and the entry is put back.
 * The content is compared while nobody can write; only then is the entry
 * replaced. Whatever fails on the way puts the old entry back: nothing to undo.
 *
 * Order: mmap_lock, folio lock of the stable node, MMU notifiers, page-table
 * lock, trylock of the page's own folio.
 */
#include <linux/highmem.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>

#include "samepage.h"
#include "contents.h"

/* A page-table entry taken out while its page is examined. */
struct sp_frozen {
	struct vm_area_struct *vma;
	unsigned long addr;
	struct page *page;
	struct folio *folio;		/* locked; the entry's reference */
	pte_t *ptep;
	pte_t entry;
	spinlock_t *ptl;		/* held; guards the entry */
	bool exclusive;
};

/* The mapping at @addr if its pages may be merged, else NULL. */
struct vm_area_struct *sp_mergeable_vma(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;

	vma = sp_mm_exiting(mm) ? NULL : vma_lookup(mm, addr);
	return vma && sp_vma_merges(vma) ? vma : NULL;
}

/* The anonymous page that @entry maps, NULL for anything else. */
static struct page *sp_anon_page(struct vm_area_struct *vma, unsigned long addr,
				 pte_t entry)
{
	struct page *page;

	if (!pte_present(entry))
		return NULL;
	page = vm_normal_page(vma, addr, entry);
	if (!page || is_zone_device_page(page) || !PageAnon(page) || PageHWPoison(page))
		return NULL;
	return page;
}

/* Put the entry back, as it was or as it was changed, and let go. */
static void sp_thaw(struct sp_frozen *f)
{
	set_pte_at(f->vma->vm_mm, f->addr, f->ptep, f->entry);
	folio_unlock(f->folio);
	pte_unmap_unlock(f->ptep, f->ptl);
}

/*
 * Take out the entry that maps @addr. Returns 0, or without a change: -ENOENT (no
 * anonymous page there), -EFBIG (perhaps, but no small one), -EEXIST (it maps @other
 * already), -EBUSY (locked or held by somebody).
 */
static int sp_freeze(struct sp_frozen *f, struct vm_area_struct *vma,
		     unsigned long addr, const struct page *other)
{
	int err = -ENOENT;

	*f = (struct sp_frozen) { .vma = vma, .addr = addr };
	f->ptep = sp_pte_lock(vma->vm_mm, addr, &f->ptl);
	if (!f->ptep)
		return -EFBIG;
	f->page = sp_anon_page(vma, addr, ptep_get(f->ptep));
	if (!f->page)
		goto unlock;
	f->folio = page_folio(f->page);
	err = -EEXIST;
	if (f->page == other)
		goto unlock;
	err = -EFBIG;
	if (folio_test_large(f->folio))
		goto unlock;
	err = -ENOENT;
	if (folio_test_ksm(f->folio))
		goto unlock;
	err = -EBUSY;
	if (!folio_trylock(f->folio))
		goto unlock;

	f->exclusive = PageAnonExclusive(f->page);
	flush_cache_page(vma, addr, page_to_pfn(f->page));
	f->entry = ptep_clear_flush(vma, addr, f->ptep);
	if (folio_mapcount(f->folio) + folio_test_swapcache(f->folio) ==
	    folio_ref_count(f->folio))
		return 0;
	sp_thaw(f);
	return -EBUSY;
unlock:
	pte_unmap_unlock(f->ptep, f->ptl);
	return err;
}

/* Give up the exclusive ownership of the page; fails when it is pinned. */
static bool sp_share(struct sp_frozen *f)
{
	return !f->exclusive ||
	       !folio_try_share_anon_rmap_pte(f->folio, f->page);
}

/* What userfaultfd and soft-dirty trackers know of the entry stays. */
static pte_t sp_keep_marks(pte_t entry, pte_t old)
{
	if (pte_soft_dirty(old))
		entry = pte_mksoft_dirty(entry);
	if (pte_uffd_wp(old))
		entry = pte_mkuffd_wp(entry);
	return entry;
}

/* Equal contents? Without branches but for one a cache line. */
static bool sp_equal(struct page *one, struct page *other)
{
	const u64 *a = kmap_local_page(one), *b = kmap_local_page(other);
	unsigned int i, j;
	u64 unlike = 0;

	for (i = 0; !unlike && i < PAGE_SIZE / sizeof(u64); i += 8)
#pragma GCC unroll 8
		for (j = 0; j < 8; j++)
			unlike |= a[i + j] ^ b[i + j];
	kunmap_local(b);
	kunmap_local(a);
	return !unlike;
}

static void sp_map_instead(struct sp_frozen *f, struct page *kpage)
{
	struct mm_struct *mm = f->vma->vm_mm;
	pte_t entry;

	if (is_zero_pfn(page_to_pfn(kpage))) {
		entry = sp_mk_zero_pte(pfn_pte(page_to_pfn(kpage),
					       f->vma->vm_page_prot), mm);
		dec_mm_counter(mm, MM_ANONPAGES);
	} else {
		folio_get(page_folio(kpage));
		folio_add_anon_rmap_pte(page_folio(kpage), kpage, f->vma, f->addr,
					RMAP_NONE);
		entry = mk_pte(kpage, f->vma->vm_page_prot);
	}
	set_pte_at(mm, f->addr, f->ptep, sp_keep_marks(entry, f->entry));
	folio_remove_rmap_pte(f->folio, f->page, f->vma);
	pte_unmap_unlock(f->ptep, f->ptl);

	if (!folio_mapped(f->folio))
		folio_free_swap(f->folio);
	folio_unlock(f->folio);
	folio_put(f->folio);
}

/*
 * Map @kpage in place of an equal page at @addr. 0, or as sp_freeze(), or
 * -EAGAIN when the contents differ.
 */
static int sp_replace(struct vm_area_struct *vma, unsigned long addr,
		      struct page *kpage)
{
	struct mmu_notifier_range range;
	struct sp_frozen f;
	int err;

	sp_notifiers_init(&range, vma, addr);
	sp_notifiers_start(&range);
	err = sp_freeze(&f, vma, addr, kpage);
	if (err)
		goto out;
	if (!sp_equal(f.page, kpage))
		err = -EAGAIN;
	else if (!sp_share(&f))
		err = -EBUSY;
	if (err)
		sp_thaw(&f);
	else
		sp_map_instead(&f, kpage);
out:
	sp_notifiers_end(&range);
	return err;
}

/* The anonymous page at @addr, small or part of a huge one, with a reference; else NULL. */
static struct page *sp_get_page(struct vm_area_struct *vma, unsigned long addr)
{
	struct page *page = NULL;
	spinlock_t *ptl; /* of the entry that maps the page */
	pmd_t *pmd, huge;
	pte_t *ptep;

	ptep = sp_pte_lock(vma->vm_mm, addr, &ptl);
	if (ptep) {
		page = sp_anon_page(vma, addr, ptep_get(ptep));
		if (page)
			get_page(page);
		pte_unmap_unlock(ptep, ptl);
		return page;
	}
	pmd = sp_pmd_lock_huge(vma->vm_mm, addr, &ptl, &huge);
	if (!pmd)
		return NULL;
	page = vm_normal_page_pmd(vma, addr & PMD_MASK, huge);
	if (page && PageAnon(page)) {
		page += (addr & ~PMD_MASK) >> PAGE_SHIFT;
		get_page(page);
	} else {
		page = NULL;
	}
	spin_unlock(ptl);
	return page;
}

/*
 * A huge page is split before one of its parts is merged, unless that part is
 * @other: -EEXIST. 0 if that was done, -ENOENT if not: it is large yet, or not there.
 */
static int sp_split_large(struct vm_area_struct *vma, unsigned long addr,
			  const struct page *other)
{
	struct page *page = sp_get_page(vma, addr);
	int err = -ENOENT;

	if (!page)
		return err;
	if (page == other) {
		err = -EEXIST;
	} else if (PageCompound(page) && trylock_page(page)) {
		if (!split_huge_page(page)) {
			sp_count(huge_split);
			err = 0;
		}
		/* @page is locked still, with our reference, in a folio of its own. */
		unlock_page(page);
	}
	put_page(page);
	return err;
}

/* The page at @addr, to be told from others, not to be followed; or NULL. */
struct page *sp_page_at(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma;
	struct page *page = NULL;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma)
		page = sp_get_page(vma, addr);
	if (page)
		put_page(page);
	mmap_read_unlock(mm);
	return page;
}

/*
 * A reference to the small page at @addr, to compare with; a huge page is split,
 * unless the page is @other. NULL where there is none.
 */
struct page *sp_hold_page(struct mm_struct *mm, unsigned long addr,
			  const struct page *other)
{
	struct vm_area_struct *vma;
	struct page *page = NULL;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma) {
		sp_split_large(vma, addr, other);
		page = sp_get_page(vma, addr);
	}
	if (page && page != other && PageCompound(page)) {
		put_page(page);
		page = NULL;
	}
	mmap_read_unlock(mm);
	return page;
}

/*
 * Map the zero page where an all-zero page stands at @addr. 0 or an errno.
 * @record tells tracers which page it is.
 */
int sp_merge_zero(struct mm_struct *mm, unsigned long addr, void *record)
{
	struct vm_area_struct *vma;
	int err = -ENOENT;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma) {
		err = sp_replace(vma, addr, ZERO_PAGE(addr));
		if (err == -EFBIG)
			err = sp_split_large(vma, addr, NULL) ?:
			      sp_replace(vma, addr, ZERO_PAGE(addr));
		sp_trace_merge_one_page(page_to_pfn(ZERO_PAGE(addr)), record, mm, err);
	}
	mmap_read_unlock(mm);
	return err;
}

/*
 * MADV_FREE by the only one who maps a merged page makes it clean: reclaim may
 * drop it. Not what others share now. With two mappings and the folio lock,
 * nobody can make it clean again.
 */
static void sp_keep_from_discard(struct folio *kfolio)
{
	if (!folio_test_dirty(kfolio) && !folio_test_swapcache(kfolio))
		folio_set_dirty(kfolio);
}

/* sp_merge_into() for a small page, at @addr of @vma; else -EFBIG. */
static int sp_share_at(struct vm_area_struct *vma, unsigned long addr, struct sp_stable *stable,
		       struct sp_item *item)
{
	struct folio *kfolio = sp_stable_folio_lock(stable);
	int err;

	if (!kfolio)
		return -ESTALE;
	if (folio_test_hwpoison(kfolio))
		err = -EBUSY;
	else
		err = sp_replace(vma, addr, &kfolio->page);
	if (!err)
		sp_keep_from_discard(kfolio);
	if (err == -EEXIST)	/* shared by fork */
		err = 0;
	if (!err)
		sp_stable_attach(stable, item, vma->anon_vma,
				 linear_page_index(vma, addr));
	if (err != -EFBIG)
		sp_trace_merge_with_ksm_page(&kfolio->page, folio_pfn(kfolio), item, vma->vm_mm,
					     err);
	folio_unlock(kfolio);
	folio_put(kfolio);
	return err;
}

/*
 * Make the page of @item share @stable. 0, or: -ESTALE (the node is stale and
 * out of the tree), -ENOENT, -EBUSY, -EAGAIN as sp_replace(). The item is a sharer
 * before the folio lock is dropped, so the reverse map misses no mapping.
 */
int sp_merge_into(struct sp_stable *stable, struct sp_item *item)
{
	struct sp_block *block = sp_sharer_block(item->page);
	unsigned long addr = sp_slot_address(block, sp_page_index(item->page));
	struct mm_struct *mm = block->owner->mm;
	struct vm_area_struct *vma;
	int err = -ENOENT;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma)
		err = sp_share_at(vma, addr, stable, item);
	if (err == -EFBIG)
		err = sp_split_large(vma, addr, NULL) ?: sp_share_at(vma, addr, stable, item);
	mmap_read_unlock(mm);
	return err == -EFBIG ? -ENOENT : err;
}

/* The frozen page becomes the folio of @stable, write-protected where it is. */
static void sp_convert(struct sp_frozen *f, struct sp_stable *stable,
		       struct sp_item *item)
{
	/* Finds every process that shares the page by fork, too. */
	struct anon_vma *anon_vma = folio_anon_vma(f->folio);

	if (pte_dirty(f->entry))
		folio_mark_dirty(f->folio);
	f->entry = pte_wrprotect(pte_mkclean(f->entry));
	stable->pfn = folio_pfn(f->folio);
	sp_stable_attach(stable, item, anon_vma, linear_page_index(f->vma, f->addr));
	WRITE_ONCE(f->folio->mapping, sp_folio_ksm_mapping(stable));
	folio_mark_accessed(f->folio);
	/* Its entries will all be clean: only the folio says that it needs swap. */
	folio_set_dirty(f->folio);
	sp_keep(stable, f->folio);
}

/* Has the page of @item, a candidate, the content that it was filed with? */
static bool sp_is_as_filed(const struct sp_item *item, struct page *page)
{
	struct sp_block *block = sp_sharer_block(item->page);
	u32 filed = block->slot[sp_page_index(item->page)].signature;
	struct sp_key key = {
		.signature = sp_sample(page),
		.domain = block->owner->domain,
		.nid = sp_page_nid(page_to_pfn(page)),
	};

	if (sp_brief(&key) == filed)
		return true;
	key.signature = sp_full_signature(page);
	return sp_brief(&key) == filed;
}

/* sp_make_stable() for a small page, at @addr of @vma; else -EFBIG. */
static int sp_convert_at(struct vm_area_struct *vma, unsigned long addr, struct sp_stable *stable,
			 struct sp_item *item, struct page *other)
{
	struct mmu_notifier_range range;
	struct sp_frozen f;
	int err;

	sp_notifiers_init(&range, vma, addr);
	sp_notifiers_start(&range);
	err = sp_freeze(&f, vma, addr, other);
	if (err)
		goto end;
	if (sp_page_nid(page_to_pfn(f.page)) != stable->key.nid ||
	    (stable->key.full ? sp_full_signature(f.page) : sp_sample(f.page)) !=
	    stable->key.signature ||
	    (stable->key.domain == SP_EVERYBODY && !sp_is_common(f.page, sp_sample(f.page))))
		err = sp_is_as_filed(item, f.page) ? -EDOM : -ESTALE;
	else if (other && !sp_equal(f.page, other))
		err = -EAGAIN;
	else if (!sp_share(&f))
		err = -EBUSY;
	else
		sp_convert(&f, stable, item);
	sp_thaw(&f);
end:
	sp_notifiers_end(&range);
	if (f.page && err != -EFBIG)
		sp_trace_merge_with_ksm_page(NULL, page_to_pfn(f.page), item, vma->vm_mm, err);
	return err;
}

/*
 * Turn the page of @item into the merged page of @stable, a new node that is
 * not in the tree yet. It must not be @other, the page that it is to be merged
 * with (shared by fork: nothing to gain), but equal to it; NULL where there is
 * none yet. 0, or -ENOENT, -EEXIST, -EBUSY, -EAGAIN as sp_replace(), or when it
 * has not the node's signature -ESTALE, or -EDOM if it never had it, only the same
 * brief key: nothing is changed then.
 */
int sp_make_stable(struct sp_stable *stable, struct sp_item *item,
		   struct page *other)
{
	struct sp_block *block = sp_sharer_block(item->page);
	unsigned long addr = sp_slot_address(block, sp_page_index(item->page));
	struct mm_struct *mm = block->owner->mm;
	struct vm_area_struct *vma;
	int err = -ENOENT;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma)
		err = sp_convert_at(vma, addr, stable, item, other);
	if (err == -EFBIG)
		err = sp_split_large(vma, addr, other) ?:
		      sp_convert_at(vma, addr, stable, item, other);
	mmap_read_unlock(mm);
	return err == -EFBIG ? -ENOENT : err;
}
