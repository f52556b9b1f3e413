// SPDX-License-Identifier: GPL-2.0-only
#include "attack.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct words split(char *line)
{
	struct words words = { 0 };
	char *rest;

	for (char *word = strtok_r(line, "\n ", &rest); word && words.count < MAX_WORDS;
	     word = strtok_r(NULL, "\n ", &rest))
		words.at[words.count++] = word;
	return words;
}

uint64_t number(const struct words *words, unsigned int index)
{
	char *end;

	if (index >= words->count)
		die("%s: word %u is missing", words->at[0], index);

	uint64_t value = strtoull(words->at[index], &end, 0);

	if (*end)
		die("%s: %s is no number", words->at[0], words->at[index]);
	return value;
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("error ", stdout);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
	fflush(stdout);
	exit(1);
}

void say_figures(const char *label, const uint64_t *figures, size_t count)
{
	fputs(label, stdout);
	for (size_t i = 0; i < count; i++)
		printf(" %" PRIu64, figures[i]);
	putchar('\n');
}

void say_bits(const char *label, const uint8_t *bits, size_t count)
{
	printf("%s ", label);
	for (size_t i = 0; i < count; i++)
		putchar('0' + bits[i]);
	putchar('\n');
}

void say_bytes(const char *label, const uint8_t *bytes, size_t count)
{
	printf("%s ", label);
	for (size_t i = 0; i < count; i++)
		printf("%02x", bytes[i]);
	putchar('\n');
}

void serve(void (*obey)(const struct words *words))
{
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0) {
		struct words words = split(line);

		if (words.count)
			obey(&words);
		puts("ok");
		fflush(stdout);
	}
	exit(0);
}
