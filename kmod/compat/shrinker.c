// SPDX-License-Identifier: GPL-2.0-only
/* The one shrinker of the module: who allocates it differs. */
#include "compat.h"

#ifdef SP_HAVE_SHRINKER_ALLOC
static struct shrinker *sp_shrinker;

int sp_shrinker_register(sp_shrink_function *count, sp_shrink_function *scan)
{
	sp_shrinker = shrinker_alloc(0, "samepage");
	if (!sp_shrinker)
		return -ENOMEM;
	sp_shrinker->count_objects = count;
	sp_shrinker->scan_objects = scan;
	sp_shrinker->seeks = DEFAULT_SEEKS;
	shrinker_register(sp_shrinker);
	return 0;
}

void sp_shrinker_unregister(void)
{
	shrinker_free(sp_shrinker);
}
#else
static struct shrinker sp_shrinker = { .seeks = DEFAULT_SEEKS };

int sp_shrinker_register(sp_shrink_function *count, sp_shrink_function *scan)
{
	sp_shrinker.count_objects = count;
	sp_shrinker.scan_objects = scan;
	return register_shrinker(&sp_shrinker, "samepage");
}

void sp_shrinker_unregister(void)
{
	unregister_shrinker(&sp_shrinker);
}
#endif
