/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of the kernel as the module's trees, records and signatures use, for one thread of user space. Every
 * <linux/...> header is empty there (harness of test_trees.py), and this is included in their place.
 */
#ifndef USERSPACE_KERNEL_H
#define USERSPACE_KERNEL_H

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef uint64_t __u64;
typedef unsigned int gfp_t;
typedef unsigned long pgoff_t;
typedef unsigned long vm_flags_t;

#define __rcu
#define noinline __attribute__((noinline))
#define unlikely(x) (x)
#define likely(x) (x)
#define U16_MAX UINT16_MAX
#define U32_MAX UINT32_MAX
#define S32_MIN INT32_MIN
#define PAGE_SHIFT 12
#define PAGE_SIZE 4096UL
#define PMD_SIZE (512 * PAGE_SIZE)
#define PMD_MASK (~(PMD_SIZE - 1))
#define BITS_PER_LONG 64
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(high, low) (((~0UL) << (low)) & (~0UL >> (63 - (high))))
#define FIELD_GET(mask, value) (((value) & (mask)) >> __builtin_ctzl(mask))
#define FIELD_PREP(mask, value) ((unsigned long)(value) << __builtin_ctzl(mask))
#define FIELD_MAX(mask) ((mask) >> __builtin_ctzl(mask))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define DECLARE_BITMAP(name, bits) unsigned long name[(bits) / BITS_PER_LONG]
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#define max(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })
#define min(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define OPTIMIZER_HIDE_VAR(x) asm("" : "+r" (x))
#define ____cacheline_aligned __attribute__((aligned(64)))
#define smp_rmb() ((void)0)
#define smp_wmb() ((void)0)
#define cpu_relax() ((void)0)
#define cond_resched() ((void)0)
#define upper_32_bits(n) ((u32)((n) >> 32))
#define hweight64(n) ((unsigned int)__builtin_popcountll(n))
#define __ffs64(n) ((unsigned int)__builtin_ctzll(n))
#define mmap_assert_locked(mm) ((void)(mm))

static inline u32 roundup_pow_of_two(u32 n)
{
	return n < 2 ? 1 : 1U << (32 - __builtin_clz(n - 1));
}

static inline u32 rounddown_pow_of_two(u32 n)
{
	return 1U << (31 - __builtin_clz(n));
}

static inline bool test_bit(unsigned long bit, const unsigned long *map)
{
	return map[bit / BITS_PER_LONG] >> (bit % BITS_PER_LONG) & 1;
}

static inline void set_bit(unsigned long bit, unsigned long *map)
{
	map[bit / BITS_PER_LONG] |= BIT(bit % BITS_PER_LONG);
}

/* Memory: every `fail_every`-th allocation fails, if that is not 0. */
#define GFP_KERNEL 0
#define GFP_NOWAIT 0
#define __GFP_NORETRY 0
#define __GFP_NOWARN 0
extern unsigned int fail_every;
void *allocate(size_t size);
#define kzalloc(size, gfp) allocate(size)
#define kcalloc(count, size, gfp) allocate((count) * (size))
#define kvcalloc(count, size, gfp) allocate((count) * (size))
#define kfree free
#define kvfree free
#define get_zeroed_page(gfp) ((unsigned long)allocate(PAGE_SIZE))
#define free_page(page) free((void *)(page))
struct kmem_cache {
	size_t size;
};

#define KMEM_CACHE(type, flags) kmem_cache_of(sizeof(struct type))
struct kmem_cache *kmem_cache_of(size_t size);
#define kmem_cache_destroy free
#define kmem_cache_zalloc(cache, gfp) allocate((cache)->size)
#define kmem_cache_free(cache, object) free(object)

/* Locks: one thread, which must not take what it holds, nor let go of what it does not. */
struct mutex {
	bool held;
};

typedef struct mutex spinlock_t;
struct rw_semaphore {
	int unused;
};

#define DEFINE_MUTEX(name) struct mutex name
void take(struct mutex *lock);
void let_go(struct mutex *lock);
#define mutex_init(lock) ((lock)->held = false)
#define spin_lock_init mutex_init
#define mutex_lock take
#define mutex_unlock let_go
#define mutex_is_locked(lock) ((lock)->held)
#define mutex_trylock(lock) ((lock)->held ? false : (take(lock), true))
#define mutex_lock_nested(lock, subclass) take(lock)
#define SINGLE_DEPTH_NESTING 1
#define lock_set_subclass(map, subclass, ip) ((void)0)
#define spin_lock take
#define spin_unlock let_go
#define rcu_read_lock() ((void)0)
#define rcu_read_unlock() ((void)0)
#define synchronize_rcu() ((void)0)
#define rcu_dereference_raw(pointer) (pointer)
#define rcu_assign_pointer(pointer, value) ((pointer) = (value))
#define DECLARE_STATIC_KEY_FALSE(name) extern bool name
#define static_branch_unlikely(key) (*(key))
#define DECLARE_PER_CPU(type, name) extern type name
#define this_cpu_inc(counter) ((counter)++)
#define this_cpu_dec(counter) ((counter)--)
#define this_cpu_add(counter, by) ((counter) += (by))

typedef struct {
	long value;
} atomic_long_t;
typedef struct {
	long long value;
} atomic64_t;
typedef struct {
	int value;
} refcount_t;
#define atomic_long_inc(counter) ((counter)->value++)
#define refcount_inc(refs) ((refs)->value++)
#define refcount_set(refs, to) ((refs)->value = (to))

struct list_head {
	struct list_head *next, *prev;
};

struct hlist_node {
	struct hlist_node *next;
};

void INIT_LIST_HEAD(struct list_head *list);
void list_add(struct list_head *entry, struct list_head *list);
void list_del_init(struct list_head *entry);
#define list_empty(list) ((list)->next == (list))
#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each_entry_safe(at, after, list, member)					\
	for (at = list_entry((list)->next, __typeof__(*at), member),				\
	     after = list_entry(at->member.next, __typeof__(*at), member);			\
	     &at->member != (list);								\
	     at = after, after = list_entry(at->member.next, __typeof__(*at), member))

/* A tree that is searched and walked like the kernel's; how it is balanced is the kernel's business. */
struct rb_node {
	struct rb_node *rb_parent, *rb_left, *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

#define RB_ROOT ((struct rb_root){ NULL })
#define RB_CLEAR_NODE(node) ((node)->rb_parent = (node))
#define RB_EMPTY_NODE(node) ((node)->rb_parent == (node))
#define rb_entry_safe(ptr, type, member)							\
	({ __typeof__(ptr) p_ = (ptr); p_ ? container_of(p_, type, member) : NULL; })
void rb_link_node(struct rb_node *node, struct rb_node *parent, struct rb_node **link);
#define rb_insert_color(node, root) ((void)(node))
void rb_erase(struct rb_node *node, struct rb_root *root);
struct rb_node *rb_first(const struct rb_root *root);
struct rb_node *rb_next(const struct rb_node *node);
struct rb_node *rb_prev(const struct rb_node *node);

/* An XArray of few entries. */
#define XA_ENTRIES 64
struct xarray {
	unsigned long index[XA_ENTRIES];
	void *entry[XA_ENTRIES];
};

void *xa_load(const struct xarray *array, unsigned long index);
int xa_store(struct xarray *array, unsigned long index, void *entry, gfp_t gfp);
void xa_erase(struct xarray *array, unsigned long index);
#define xa_err(result) (result)
void *xa_find_from(const struct xarray *array, unsigned long *index, unsigned long last);
#define xa_for_each_range(array, at, entry, first, last)					\
	for (at = (first); (entry = xa_find_from(array, &at, last)); at++)
#define xa_for_each(array, at, entry) xa_for_each_range(array, at, entry, 0, ULONG_MAX)

/* Pages. A page's number is its address, so that what points nowhere is seen. */
struct folio;
struct page {
	u64 words[512];
};

struct folio {
	struct page page;	/* first */
	void *mapping;
	int mapped;
	bool locked;
};

struct anon_vma {
	int refs;
};

struct mm_struct {
	unsigned long ksm_rmap_items, ksm_merging_pages;
	int mm_users;
};

#define atomic_read(counter) (*(counter))
struct vm_area_struct {
	unsigned long vm_flags;
	struct anon_vma *anon_vma;
};

#define VM_MERGEABLE 1
#define VM_PFNMAP 2
#define VM_MIXEDMAP 4
struct rmap_walk_control;
struct seq_file;
struct task_struct;
typedef void *vma_flags_t;
#define sp_collect_const
#define sp_copy_type struct page
#define kmap_local_page(page) ((void *)(page)->words)
#define kunmap_local(content) ((void)(content))
extern struct page zero_page;
#define ZERO_PAGE(addr) (&zero_page)
#define page_folio(page) ((struct folio *)(page))
#define page_to_pfn(page) ((unsigned long)(page))
#define pfn_folio(pfn) ((struct folio *)(pfn))
#define folio_pfn(folio) ((unsigned long)(folio))
#define pfn_to_nid(pfn) (0 * (pfn))
#define folio_mapped(folio) ((folio)->mapped > 0)
#define folio_test_swapcache(folio) (0 && (folio))
bool folio_try_get(struct folio *folio);
#define folio_put(folio) ((void)(folio))
#define put_page(page) ((void)(page))
void folio_lock(struct folio *folio);
void folio_unlock(struct folio *folio);
#define get_anon_vma(anon_vma) ((anon_vma)->refs++)
#define put_anon_vma(anon_vma) ((anon_vma)->refs--)

/* A processor with CRC32, or one without. */
extern bool has_crc;
#define X86_FEATURE_XMM4_2 0
#define cpu_feature_enabled(feature) has_crc
void get_random_bytes(void *into, size_t size);
u32 get_random_u32(void);

/* The module's compat/compat.h, which is left out. */
#define SAMEPAGE_COMPAT_H
#define FOLIO_MAPPING_KSM 3UL
#define sp_folio_ksm_mapping(stable) ((void *)((unsigned long)(stable) | FOLIO_MAPPING_KSM))
#define sp_trace_on(event) false
#define sp_trace_remove_rmap_item(pfn, item, mm) ((void)0)
#define sp_trace_remove_ksm_page(pfn) ((void)0)

#endif
