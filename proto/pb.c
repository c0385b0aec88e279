#include "proto/pb.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void pb_set_string(char **field, const char *value)
{
	/* The copy comes first: value may be the old string or lie in it. */
	char *copy = value && *value ? str_dup(value) : (char *)protobuf_c_empty_string;

	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

void pb_set_bytes(ProtobufCBinaryData *field, const void *data, size_t len)
{
	uint8_t *copy = len ? mem_dup(data, len) : NULL;

	free(field->data);
	field->data = copy;
	field->len = len;
}

void pb_array_insert(void *array_field, size_t *n, size_t pos, void *message)
{
	void **array;

	assert(pos <= *n && message);
	/* The field is some T **; it is read and written as bytes because C has no T ** that aliases all. */
	memcpy(&array, array_field, sizeof(array));
	array = mem_realloc(array, (*n + 1) * sizeof(*array));
	memmove(array + pos + 1, array + pos, (*n - pos) * sizeof(*array));
	array[pos] = message;
	++*n;
	memcpy(array_field, &array, sizeof(array));
}

void pb_array_remove(void *array_field, size_t *n, size_t pos)
{
	void **array;

	assert(pos < *n);
	memcpy(&array, array_field, sizeof(array));
	memmove(array + pos, array + pos + 1, (*n - pos - 1) * sizeof(*array));
	--*n;
	if (!*n) {
		/* An empty repeated field has no array: free_unpacked() leaves that of a zero count alone. */
		free(array);
		array = NULL;
		memcpy(array_field, &array, sizeof(array));
	}
}

void pb_string_append(char ***array, size_t *n, const char *value)
{
	*array = mem_realloc(*array, (*n + 1) * sizeof(**array));
	(*array)[(*n)++] = str_dup(value ? value : "");
}

void pb_u32_append(uint32_t **array, size_t *n, uint32_t value)
{
	*array = mem_realloc(*array, (*n + 1) * sizeof(**array));
	(*array)[(*n)++] = value;
}

size_t pb_field_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
		return sizeof(uint32_t);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return sizeof(uint64_t);
	case PROTOBUF_C_TYPE_ENUM:
		return sizeof(int);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	}
	abort();
}

/* One value from one place to another; what it points to is copied too. */
static void pb__copy_value(const ProtobufCFieldDescriptor *f, const void *from, void *to)
{
	const ProtobufCBinaryData *bytes = from;
	const void *pointer;
	void *copy;

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		memcpy(&pointer, from, sizeof(pointer));
		/* The shared empty string stays shared, except in repeated fields (see pb.h). */
		if (pointer == protobuf_c_empty_string && f->label != PROTOBUF_C_LABEL_REPEATED)
			copy = (char *)protobuf_c_empty_string;
		else
			copy = str_dup(pointer);
		memcpy(to, &copy, sizeof(copy));
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		memcpy(&pointer, from, sizeof(pointer));
		copy = pointer ? pb_clone(pointer) : NULL;
		memcpy(to, &copy, sizeof(copy));
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)to = (ProtobufCBinaryData){
			.len = bytes->len, .data = bytes->len ? mem_dup(bytes->data, bytes->len) : NULL,
		};
		break;
	default:
		memcpy(to, from, pb_field_size(f->type));
		break;
	}
}

static void pb__copy_repeated(const ProtobufCFieldDescriptor *f, const uint8_t *from, uint8_t *to)
{
	size_t n = *(const size_t *)(from + f->quantifier_offset), size = pb_field_size(f->type);
	const uint8_t *items;
	uint8_t *copies;

	if (!n)
		return;
	memcpy(&items, from + f->offset, sizeof(items));
	copies = mem_alloc(n * size);
	for (size_t i = 0; i < n; i++)
		pb__copy_value(f, items + i * size, copies + i * size);
	memcpy(to + f->offset, &copies, sizeof(copies));
	*(size_t *)(to + f->quantifier_offset) = n;
}

/* Recursion ends with the message types, which do not contain themselves. */
void *pb_clone(const void *message)
{
	const ProtobufCMessage *m = message;
	const uint8_t *from = message;
	uint8_t *to = mem_alloc(m->descriptor->sizeof_message);

	protobuf_c_message_init(m->descriptor, to);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			pb__copy_repeated(f, from, to);
			continue;
		}
		if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
			/* Of the alternatives, which share their place, only the chosen one. */
			if (*(const uint32_t *)(from + f->quantifier_offset) != f->id)
				continue;
			*(uint32_t *)(to + f->quantifier_offset) = f->id;
		}
		pb__copy_value(f, from + f->offset, to + f->offset);
	}
	return to;
}

static bool pb__has_unknown(const ProtobufCMessage *m);

static bool pb__field_has_unknown(const ProtobufCFieldDescriptor *f, const uint8_t *base)
{
	ProtobufCMessage *const *items, *one;
	size_t n;

	if (f->type != PROTOBUF_C_TYPE_MESSAGE)
		return false;
	if (f->label == PROTOBUF_C_LABEL_REPEATED) {
		n = *(const size_t *)(base + f->quantifier_offset);
		memcpy(&items, base + f->offset, sizeof(items));
		for (size_t i = 0; i < n; i++)
			if (pb__has_unknown(items[i]))
				return true;
		return false;
	}
	if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)(base + f->quantifier_offset) != f->id)
		return false;
	memcpy(&one, base + f->offset, sizeof(one));
	return one && pb__has_unknown(one);
}

static bool pb__has_unknown(const ProtobufCMessage *m)
{
	if (m->n_unknown_fields)
		return true;
	for (unsigned i = 0; i < m->descriptor->n_fields; i++)
		if (pb__field_has_unknown(&m->descriptor->fields[i], (const uint8_t *)m))
			return true;
	return false;
}

void pb_pack(const void *message, struct buf *out)
{
	ProtobufCMessage *known = pb__has_unknown(message) ? pb_clone(message) : NULL;
	const ProtobufCMessage *m = known ? known : message;
	size_t size = protobuf_c_message_get_packed_size(m);

	out->len += protobuf_c_message_pack(m, buf_reserve(out, size));
	if (known)
		protobuf_c_message_free_unpacked(known, NULL);
}

bool pb_equal(const void *a, const void *b)
{
	const ProtobufCMessage *x = a, *y = b;
	struct buf px = {0}, py = {0};
	bool equal;

	if (!x || !y)
		return x == y;
	if (x->descriptor != y->descriptor)
		return false;
	/* Packing goes by field number and leaves defaults out: equal content, equal bytes. */
	pb_pack(x, &px);
	pb_pack(y, &py);
	equal = px.len == py.len && (!px.len || memcmp(px.data, py.data, px.len) == 0);
	buf_free(&px);
	buf_free(&py);
	return equal;
}
