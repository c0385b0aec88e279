#include "lib/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_MIN_CAP = 64 };

static void *mem__or_abort(void *p)
{
	if (!p)
		abort();
	return p;
}

void *mem_alloc(size_t size)
{
	return mem__or_abort(calloc(1, size ? size : 1));
}

void *mem_realloc(void *p, size_t size)
{
	return mem__or_abort(realloc(p, size ? size : 1));
}

void *mem_dup(const void *p, size_t size)
{
	void *copy = mem__or_abort(malloc(size ? size : 1));

	if (size)
		memcpy(copy, p, size);
	return copy;
}

char *str_dup(const char *s)
{
	return s ? mem_dup(s, strlen(s) + 1) : NULL;
}

char *str_printf(const char *fmt, ...)
{
	va_list args;
	char *text;
	int n;

	assert(fmt);
	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	assert(n >= 0);
	text = mem__or_abort(malloc((size_t)n + 1));
	va_start(args, fmt);
	vsnprintf(text, (size_t)n + 1, fmt, args);
	va_end(args);
	return text;
}

void *buf_reserve(struct buf *b, size_t len)
{
	size_t cap = b->cap ? b->cap : BUF_MIN_CAP;

	assert(len <= SIZE_MAX / 4 && b->len <= SIZE_MAX / 4);
	while (cap < b->len + len)
		cap *= 2;
	if (cap != b->cap) {
		b->data = mem_realloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_append(struct buf *b, const void *data, size_t len)
{
	if (!len)
		return;
	memcpy(buf_reserve(b, len), data, len);
	b->len += len;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list args;
	int n;

	assert(fmt);
	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	assert(n >= 0);
	va_start(args, fmt);
	vsnprintf(buf_reserve(b, (size_t)n + 1), (size_t)n + 1, fmt, args);
	va_end(args);
	b->len += (size_t)n;
}

void buf_consume(struct buf *b, size_t len)
{
	assert(len <= b->len);
	b->len -= len;
	if (b->len && len)
		memmove(b->data, b->data + len, b->len);
}

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}

const char *buf_str(struct buf *b)
{
	*(char *)buf_reserve(b, 1) = '\0';
	return (const char *)b->data;
}
