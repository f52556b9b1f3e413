// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's own trees, records, signatures and matching, over memory that is an array: what the page tables would say
 * is in `maps`. Commands come on stdin, a line each; numbers in them are decimal.
 *
 *	W content word value	one of the contents, zero at first, gets a word
 *	S space page content	a process writes a page
 *	U space page		and unmaps it
 *	V space page		the scanner visits one page
 *	P passes		... all pages, so many times
 *	F every			every so many allocations fail; 0: none
 *	X space domain		the space is in another domain from now on: nothing is known of it, nothing merged
 *	D			print all pages and counts
 */
#include "batch.h"
#include "contents.h"

#define SPACES 8
#define PAGES 128
#define CONTENTS 256
#define FOLIOS (2 * SPACES * PAGES)
#define BASE 0x10000000UL

struct map {
	struct folio *folio;
	bool dirty;
};

static struct map maps[SPACES][PAGES];
static struct mm_struct mms[SPACES];
static struct sp_space spaces[SPACES];
static struct sp_domain home;
static struct folio folios[FOLIOS];
static u64 contents[CONTENTS][512];
static struct anon_vma anon_vma;

struct sp_tunables sp_tunables = { .max_page_sharing = 256, .merge_across_nodes = 1, .huge_min_twins = 64 };
struct sp_passes sp_passes;
struct sp_counts sp_counts;
bool sp_parallel;

/* Timing-safe merging is off. */
bool sp_timing_on;

void sp_unkeep(struct sp_stable *stable, struct folio *folio)
{
}

void sp_unkeep_unmapped(struct sp_stable *stable, struct folio *folio)
{
}

bool sp_find_frame(struct sp_stable *stable)
{
	return true;
}

/* And no contents are for all. */
bool sp_is_common(struct page *page, u64 sample)
{
	abort();
}

void sp_merge_alone(const struct sp_found *found, const struct sp_key *key)
{
	abort();
}

static struct map *map_at(struct mm_struct *mm, unsigned long addr)
{
	return &maps[mm - mms][(addr - BASE) >> PAGE_SHIFT];
}

static bool is_merged(const struct folio *folio)
{
	return ((unsigned long)folio->mapping & FOLIO_MAPPING_KSM) == FOLIO_MAPPING_KSM;
}

static void unmap(struct map *map)
{
	if (map->folio && !--map->folio->mapped)
		map->folio->mapping = NULL;	/* it is free, and may be anything next */
	map->folio = NULL;
}

static void map_folio(struct map *map, struct folio *folio)
{
	folio->mapped++;
	unmap(map);
	map->folio = folio;
}

static void map_copy(struct map *map, const u64 *words)
{
	static unsigned int next;

	while (folios[next % FOLIOS].mapped)
		next++;
	memcpy(folios[next % FOLIOS].page.words, words, PAGE_SIZE);
	map_folio(map, &folios[next++ % FOLIOS]);
	map->dirty = true;
}

/* What the module finds in place of merge.c, unmerge.c, registry.c, domain.c and scan.c. */

struct page *sp_page_at(struct mm_struct *mm, unsigned long addr)
{
	return (struct page *)map_at(mm, addr)->folio;
}

struct page *sp_hold_page(struct mm_struct *mm, unsigned long addr, const struct page *other)
{
	(void)other;
	return sp_page_at(mm, addr);
}

int sp_merge_zero(struct mm_struct *mm, unsigned long addr, void *record)
{
	(void)mm, (void)addr, (void)record;
	return -EBUSY;
}

int sp_merge_into(struct sp_stable *stable, struct sp_item *item)
{
	struct map *map = map_at(sp_item_mm(item), sp_item_address(item));
	struct folio *folio;
	int err = -EAGAIN;

	if (!map->folio)
		return -ENOENT;
	folio = sp_stable_folio_lock(stable);
	if (!folio)
		return -ESTALE;
	if (!memcmp(&folio->page, &map->folio->page, PAGE_SIZE)) {
		map_folio(map, folio);
		sp_stable_attach(stable, item, &anon_vma, sp_item_address(item) >> PAGE_SHIFT);
		err = 0;
	}
	folio_unlock(folio);
	return err;
}

/* As sp_is_as_filed() of merge.c. */
static bool is_as_filed(const struct sp_item *item, struct page *page)
{
	struct sp_block *block = sp_sharer_block(item->page);
	u32 filed = block->slot[sp_page_index(item->page)].signature;
	struct sp_key key = { .signature = sp_sample(page), .domain = block->owner->domain };

	if (sp_brief(&key) == filed)
		return true;
	key.signature = sp_full_signature(page);
	return sp_brief(&key) == filed;
}

int sp_make_stable(struct sp_stable *stable, struct sp_item *item, struct page *other)
{
	struct folio *folio = map_at(sp_item_mm(item), sp_item_address(item))->folio;

	if (!folio)
		return -ENOENT;
	if (&folio->page == other)
		return -EEXIST;
	if ((stable->key.full ? sp_full_signature(&folio->page) : sp_sample(&folio->page)) != stable->key.signature)
		return is_as_filed(item, &folio->page) ? -EDOM : -ESTALE;
	if (memcmp(folio, other, PAGE_SIZE))
		return -EAGAIN;
	stable->pfn = folio_pfn(folio);
	sp_stable_attach(stable, item, &anon_vma, sp_item_address(item) >> PAGE_SHIFT);
	folio->mapping = sp_folio_ksm_mapping(stable);
	return 0;
}

int sp_break_cow(struct mm_struct *mm, unsigned long addr)
{
	struct map *map = map_at(mm, addr);

	if (map->folio && is_merged(map->folio))
		map_copy(map, map->folio->page.words);
	return 0;
}

void sp_space_put(struct sp_space *space)
{
	space->refs.value--;
}

void sp_domain_hold(u16 id)
{
	(void)id;
	home.refs.value++;
}

void sp_domain_release(u16 id)
{
	(void)id;
	home.refs.value--;
}

void sp_scan_refile_forked(void)
{
}

/* As in attrs.c. */
unsigned long sp_stripes_sum_at(size_t offset)
{
	struct sp_stripe *stripe;
	unsigned long sum = 0;

	sp_for_each_stripe(stripe)
		sum += *(unsigned long *)((char *)stripe + offset);
	return sum;
}

/* The scanner, a page at a time: as collect.c would see it. */
static void visit(unsigned int s, unsigned int n)
{
	struct sp_batch batch = { .space = &spaces[s], .by_dirty = true };
	unsigned long addr = BASE + (n << PAGE_SHIFT);
	struct sp_block *block = sp_block_find(&spaces[s], addr);
	struct map *map = &maps[s][n];
	struct sp_found found = { .index = n % SP_BLOCK_PAGES, .page = (struct page *)map->folio };
	u64 bit = BIT_ULL(found.index);

	if (!block && map->folio)
		block = sp_block_new(&spaces[s], addr, false);
	if (!block)
		return;
	found.block = block;
	if (!map->folio) {
		found.todo = SP_TODO_GONE;
	} else if (is_merged(map->folio)) {
		return;
	} else if (block->sharers & bit) {
		found.todo = SP_TODO_LOST;
	} else if (map->dirty || !(block->tracked & bit)) {
		map->dirty = false;
		sp_slot_changed(block, found.index);
		return;
	} else if (block->settled & bit) {
		return;
	} else {
		found.todo = SP_TODO_SIGN;
		found.sample = sp_sample(found.page);
		found.special = sp_crowded(found.sample) ? SP_CROWDED : 0;
		found.full = sp_full_signature(found.page);
	}
	sp_match_page(&batch, &found);
}

static void pass(void)
{
	for (unsigned int s = 0; s < SPACES; s++) {
		for (unsigned int n = 0; n < PAGES; n++)
			visit(s, n);
	}
	sp_stable_prune();
}

static void change_domain(unsigned int s, unsigned int domain)
{
	for (unsigned int n = 0; n < PAGES; n++)
		sp_break_cow(&mms[s], BASE + (n << PAGE_SHIFT));
	sp_forget_range(&spaces[s], 0, ULONG_MAX);
	spaces[s].domain = domain;
}

/* A line for each page: space, page, merged or not, candidate or not, folio, and which words are not zero. */
static void print_pages(void)
{
	for (unsigned int s = 0; s < SPACES; s++) {
		for (unsigned int n = 0; n < PAGES; n++) {
			struct folio *folio = maps[s][n].folio;
			struct sp_block *block = sp_block_find(&spaces[s], BASE + (n << PAGE_SHIFT));

			if (!folio)
				continue;
			printf("page %u %u %d %d %ld", s, n, is_merged(folio),
			       block && (block->candidates >> n % SP_BLOCK_PAGES & 1), folio - folios);
			for (unsigned int w = 0; w < PAGE_SIZE / sizeof(u64); w++) {
				if (folio->page.words[w])
					printf(" %u %llu", w, (unsigned long long)folio->page.words[w]);
			}
			putchar('\n');
		}
	}
}

static unsigned int longest_list(const struct sp_stripe *stripe)
{
	unsigned int longest = 0;

	for (u32 bucket = 0; bucket < stripe->nr_buckets; bucket++) {
		unsigned int length = 0;

		for (u32 page = sp_unstable_first(stripe, bucket); page; length++)
			page = sp_block_of(page)->slot[sp_page_index(page)].next;
		longest = max(longest, length);
	}
	return longest;
}

static void print_counts(void)
{
	unsigned long shared = 0, sharing = 0, candidates = 0;
	unsigned int longest = 0;
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		struct sp_stable *before = NULL, *stable = NULL;

		shared += stripe->shared;
		sharing += stripe->sharing;
		candidates += stripe->candidates;
		longest = max(longest, longest_list(stripe));
		while ((stable = sp_stable_after(stripe, stable))) {
			if (before && sp_key_order(&before->key, &stable->key) > 0)
				printf("disorder\n");
			before = stable;
		}
	}
	printf("counts %lu %lu %lu %u\n", shared, sharing, candidates, longest);
	fflush(stdout);
}

static void set_up(void)
{
	sp_signature_init();
	if (sp_records_init() || sp_stable_init() || sp_unstable_init())
		abort();
	for (unsigned int s = 0; s < SPACES; s++) {
		mms[s].mm_users = 1;
		spaces[s].mm = &mms[s];
		spaces[s].home = &home;
		spaces[s].refs.value = 1;
	}
}

/* Everything goes; what is left is a leak. */
static void tear_down(void)
{
	fail_every = 0;
	for (unsigned int s = 0; s < SPACES; s++) {
		for (unsigned int n = 0; n < PAGES; n++)
			unmap(&maps[s][n]);
		sp_forget_range(&spaces[s], 0, ULONG_MAX);
		if (mms[s].ksm_rmap_items || mms[s].ksm_merging_pages || spaces[s].refs.value != 1 || spaces[s].nr_blocks)
			printf("left: space %u\n", s);
	}
	sp_stable_prune();
	print_counts();
	if (anon_vma.refs || home.refs.value)
		printf("left: %d references to anon_vma, %d to the domain\n", anon_vma.refs, home.refs.value);
	sp_records_destroy();
	sp_stable_destroy();
	sp_unstable_destroy();
}

static void carry_out(char what, unsigned long a, unsigned long b, unsigned long c)
{
	switch (what) {
	case 'W':
		contents[a % CONTENTS][b % 512] = c;
		break;
	case 'S':
		map_copy(&maps[a % SPACES][b % PAGES], contents[c % CONTENTS]);
		break;
	case 'U':
		unmap(&maps[a % SPACES][b % PAGES]);
		break;
	case 'V':
		visit(a % SPACES, b % PAGES);
		break;
	case 'P':
		while (a--)
			pass();
		break;
	case 'F':
		fail_every = a;
		break;
	case 'X':
		change_domain(a % SPACES, b);
		break;
	case 'D':
		print_pages();
		print_counts();
		break;
	}
}

/* Arguments: `locks` as with several scanners, `crc` as on a processor that has it; max_page_sharing. */
int main(int argc, char **argv)
{
	unsigned long a, b, c;
	char line[128], what;

	for (int i = 1; i < argc; i++) {
		sp_parallel |= !strcmp(argv[i], "locks");
		has_crc |= !strcmp(argv[i], "crc");
		if (atoi(argv[i]))
			sp_tunables.max_page_sharing = atoi(argv[i]);
	}
	set_up();
	while (fgets(line, sizeof(line), stdin)) {
		a = b = c = 0;
		if (sscanf(line, " %c %lu %lu %lu", &what, &a, &b, &c) >= 1)
			carry_out(what, a, b, c);
	}
	tear_down();
	return 0;
}
