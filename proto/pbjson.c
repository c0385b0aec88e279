#include "proto/pbjson.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

/* ---- enum words ---- */

/* The words of one enum, made once and kept for the life of the program (there are a dozen enums). Only for
 * the loop's thread. */
struct pbjson_words {
	const ProtobufCEnumDescriptor *descriptor;
	struct pbjson_words *next;
	char **words; /* as descriptor->values */
};

static struct pbjson_words *pbjson__all_words;

/* Up to the last '_' that all names share: DOMAIN_STATE_ of DOMAIN_STATE_RUNNING. */
static size_t pbjson__common_prefix(const ProtobufCEnumDescriptor *d)
{
	const char *first = d->values[0].name;
	size_t common = strlen(first);

	for (unsigned i = 1; i < d->n_values; i++) {
		size_t n = 0;

		while (n < common && d->values[i].name[n] == first[n])
			n++;
		common = n;
	}
	if (d->n_values == 1)
		return 0;
	while (common && first[common - 1] != '_')
		common--;
	return common;
}

static const struct pbjson_words *pbjson__words(const ProtobufCEnumDescriptor *d)
{
	struct pbjson_words *w;
	size_t prefix;

	for (w = pbjson__all_words; w; w = w->next)
		if (w->descriptor == d)
			return w;
	w = mem_alloc(sizeof(*w));
	w->descriptor = d;
	w->words = mem_alloc(d->n_values * sizeof(*w->words));
	prefix = pbjson__common_prefix(d);
	for (unsigned i = 0; i < d->n_values; i++) {
		w->words[i] = str_dup(d->values[i].name + prefix);
		for (char *c = w->words[i]; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	}
	w->next = pbjson__all_words;
	pbjson__all_words = w;
	return w;
}

const char *pbjson_enum_word(const ProtobufCEnumDescriptor *descriptor, int value)
{
	const struct pbjson_words *w = pbjson__words(descriptor);

	for (unsigned i = 0; i < descriptor->n_values; i++)
		if (descriptor->values[i].value == value)
			return w->words[i];
	return "unknown"; /* of a newer release */
}

static int pbjson__enum_value(const ProtobufCEnumDescriptor *d, const char *word, int *ret)
{
	const struct pbjson_words *w = pbjson__words(d);

	for (unsigned i = 0; i < d->n_values; i++)
		if (strcmp(w->words[i], word) == 0 || strcmp(d->values[i].name, word) == 0) {
			*ret = d->values[i].value;
			return 0;
		}
	return -EINVAL;
}

/* ---- message to JSON ---- */

/* JSON is UTF-8; a text that is not (a guest's, a peer's) keeps its ASCII. */
static json_t *pbjson__string(const char *text)
{
	json_t *j = json_string(text ? text : "");
	char *ascii;

	if (j)
		return j;
	ascii = str_dup(text);
	for (char *c = ascii; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	j = json_string(ascii);
	free(ascii);
	return j;
}

/* Above what a signed 64-bit integer holds, jansson has no number: decimal text then. */
static json_t *pbjson__unsigned(uint64_t value)
{
	char text[24];

	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return json_string(text);
}

static json_t *pbjson__value(const ProtobufCFieldDescriptor *f, const void *at, bool all)
{
	const ProtobufCMessage *message;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_integer(*(const int32_t *)at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)at);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return json_integer(*(const int64_t *)at);
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return pbjson__unsigned(*(const uint64_t *)at);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real(*(const float *)at);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)at);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)at);
	case PROTOBUF_C_TYPE_ENUM:
		return pbjson__string(pbjson_enum_word(f->descriptor, *(const int *)at));
	case PROTOBUF_C_TYPE_STRING:
		return pbjson__string(*(char *const *)at);
	case PROTOBUF_C_TYPE_MESSAGE:
		message = *(const ProtobufCMessage *const *)at;
		return message ? pbjson_from_message(message, all) : json_null();
	case PROTOBUF_C_TYPE_BYTES:
		break;
	}
	return NULL;
}

/* proto3: not set and set to the default are the same. */
static bool pbjson__is_default(const ProtobufCFieldDescriptor *f, const void *at)
{
	static const uint8_t zero[sizeof(uint64_t)];

	if (f->type == PROTOBUF_C_TYPE_STRING)
		return !*(char *const *)at || !**(char *const *)at;
	return memcmp(at, zero, pb_field_size(f->type)) == 0;
}

static bool pbjson__is_secret(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *f)
{
	return message->descriptor == &gantry__fence_param__descriptor && strcmp(f->name, "value") == 0 &&
	       ((const Gantry__FenceParam *)message)->secret;
}

static json_t *pbjson__repeated(const ProtobufCFieldDescriptor *f, const uint8_t *base, bool all)
{
	size_t n = *(const size_t *)(base + f->quantifier_offset);
	const uint8_t *items = *(uint8_t *const *)(base + f->offset);
	json_t *array;

	if (!n && !all)
		return NULL;
	array = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, pbjson__value(f, items + i * pb_field_size(f->type), all));
	return array;
}

static json_t *pbjson__field(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *f, bool all)
{
	const uint8_t *base = (const uint8_t *)message;

	if (f->type == PROTOBUF_C_TYPE_BYTES || pbjson__is_secret(message, f))
		return NULL;
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return pbjson__repeated(f, base, all);
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		/* The case says which one it is; the others share its memory. */
		if (*(const uint32_t *)(base + f->quantifier_offset) != f->id)
			return NULL;
	} else if (!all && pbjson__is_default(f, base + f->offset)) {
		return NULL;
	}
	return pbjson__value(f, base + f->offset, all);
}

json_t *pbjson_from_message(const ProtobufCMessage *message, bool all)
{
	const ProtobufCMessageDescriptor *d = message->descriptor;
	json_t *object = json_object();

	for (unsigned i = 0; i < d->n_fields; i++) {
		json_t *value = pbjson__field(message, &d->fields[i], all);

		if (value)
			json_object_set_new(object, d->fields[i].name, value);
	}
	return object;
}

/* ---- JSON to message ---- */

static int pbjson__get_integer(const json_t *json, int64_t min, uint64_t max, const char *name, uint64_t *ret, struct err *err)
{
	const char *text = json_string_value(json);
	char *end;

	if (json_is_integer(json)) {
		json_int_t v = json_integer_value(json);

		if (v >= 0 ? (uint64_t)v <= max : v >= min) {
			*ret = (uint64_t)v;
			return 0;
		}
		return err_set(err, ERANGE, "'%s': %lld is out of range", name, (long long)v);
	}
	if (text && max == UINT64_MAX && isdigit((unsigned char)text[0])) {
		errno = 0;
		*ret = strtoull(text, &end, 10);
		if (!errno && !*end)
			return 0;
	}
	return err_set(err, EINVAL, "'%s': a whole number is wanted", name);
}

static int pbjson__set_integer(const ProtobufCFieldDescriptor *f, const json_t *json, void *at, struct err *err)
{
	uint64_t v = 0;
	int rc;

	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		rc = pbjson__get_integer(json, INT32_MIN, INT32_MAX, f->name, &v, err);
		*(int32_t *)at = (int32_t)v;
		return rc;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		rc = pbjson__get_integer(json, 0, UINT32_MAX, f->name, &v, err);
		*(uint32_t *)at = (uint32_t)v;
		return rc;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		rc = pbjson__get_integer(json, 0, UINT64_MAX, f->name, &v, err);
		*(uint64_t *)at = v;
		return rc;
	default:
		rc = pbjson__get_integer(json, INT64_MIN, INT64_MAX, f->name, &v, err);
		*(int64_t *)at = (int64_t)v;
		return rc;
	}
}

static int pbjson__set_enum(const ProtobufCFieldDescriptor *f, const json_t *json, int *at, struct err *err)
{
	const char *word = json_string_value(json);

	if (!word)
		return err_set(err, EINVAL, "'%s': a word is wanted", f->name);
	if (pbjson__enum_value(f->descriptor, word, at) < 0)
		return err_set(err, EINVAL, "'%s': there is no '%s'", f->name, word);
	return 0;
}

static int pbjson__set_string(const ProtobufCFieldDescriptor *f, const json_t *json, char **at, struct err *err)
{
	const char *text = json_string_value(json);

	if (!text || strlen(text) != json_string_length(json))
		return err_set(err, EINVAL, "'%s': a text is wanted", f->name);
	pb_set_string(at, text);
	return 0;
}

static int pbjson__set_value(const ProtobufCFieldDescriptor *f, const json_t *json, void *at, struct err *err)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		if (!json_is_number(json))
			return err_set(err, EINVAL, "'%s': a number is wanted", f->name);
		if (f->type == PROTOBUF_C_TYPE_FLOAT)
			*(float *)at = (float)json_number_value(json);
		else
			*(double *)at = json_number_value(json);
		return 0;
	case PROTOBUF_C_TYPE_BOOL:
		if (!json_is_boolean(json))
			return err_set(err, EINVAL, "'%s': true or false is wanted", f->name);
		*(protobuf_c_boolean *)at = json_is_true(json);
		return 0;
	case PROTOBUF_C_TYPE_ENUM:
		return pbjson__set_enum(f, json, at, err);
	case PROTOBUF_C_TYPE_STRING:
		return pbjson__set_string(f, json, at, err);
	case PROTOBUF_C_TYPE_MESSAGE:
		return pbjson_to_message(json, f->descriptor, at, err);
	case PROTOBUF_C_TYPE_BYTES:
		return err_set(err, EINVAL, "'%s': binary data has no JSON form here", f->name);
	default:
		return pbjson__set_integer(f, json, at, err);
	}
}

/* protobuf-c frees the strings of a repeated field without a look: none may be its shared empty string. */
static void pbjson__own_element(const ProtobufCFieldDescriptor *f, void *at)
{
	char **text = at;

	if (f->type == PROTOBUF_C_TYPE_STRING && *text == protobuf_c_empty_string)
		*text = str_dup("");
}

static int pbjson__set_repeated(const ProtobufCFieldDescriptor *f, const json_t *json, uint8_t *base, struct err *err)
{
	size_t size = pb_field_size(f->type), n = json_array_size(json);
	size_t *count = (size_t *)(base + f->quantifier_offset);
	uint8_t *items;

	if (!json_is_array(json))
		return err_set(err, EINVAL, "'%s': a list is wanted", f->name);
	if (!n)
		return 0;
	items = mem_alloc(n * size);
	*(uint8_t **)(base + f->offset) = items;
	for (size_t i = 0; i < n; i++) {
		int rc;

		rc = pbjson__set_value(f, json_array_get(json, i), items + i * size, err);
		if (rc < 0)
			return rc;
		pbjson__own_element(f, items + i * size);
		/* Counted one by one: what a failure leaves is freed with the message. */
		*count = i + 1;
	}
	return 0;
}

static int pbjson__set_oneof(const ProtobufCFieldDescriptor *f, const json_t *json, uint8_t *base, struct err *err)
{
	uint32_t *which = (uint32_t *)(base + f->quantifier_offset);
	union { uint64_t number; char *text; } storage = {0};
	int rc;

	if (*which)
		return err_set(err, EINVAL, "'%s': only one of its alternatives may be given", f->name);
	if (f->type == PROTOBUF_C_TYPE_STRING)
		storage.text = (char *)protobuf_c_empty_string;
	rc = pbjson__set_value(f, json, &storage, err);
	if (rc < 0)
		return rc;
	memcpy(base + f->offset, &storage, pb_field_size(f->type));
	*which = f->id;
	return 0;
}

static int pbjson__set_field(const ProtobufCFieldDescriptor *f, const json_t *json, uint8_t *base, struct err *err)
{
	if (json_is_null(json))
		return 0;
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return pbjson__set_repeated(f, json, base, err);
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return pbjson__set_oneof(f, json, base, err);
	return pbjson__set_value(f, json, base + f->offset, err);
}

/* Recursion ends with the message types, which do not contain themselves. */
int pbjson_to_message(const json_t *json, const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret, struct err *err)
{
	ProtobufCMessage *message;
	const char *key;
	json_t *value;
	int rc = 0;

	if (!json_is_object(json))
		return err_set(err, EINVAL, "%s: an object {...} is wanted", descriptor->short_name);
	message = mem_alloc(descriptor->sizeof_message);
	protobuf_c_message_init(descriptor, message);
	json_object_foreach((json_t *)(uintptr_t)json, key, value) {
		const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(descriptor, key);

		if (!f)
			rc = err_set(err, EINVAL, "%s has no '%s'", descriptor->short_name, key);
		else
			rc = pbjson__set_field(f, value, (uint8_t *)message, err);
		if (rc < 0)
			break;
	}
	if (rc < 0) {
		protobuf_c_message_free_unpacked(message, NULL);
		return rc;
	}
	*ret = message;
	return 0;
}
