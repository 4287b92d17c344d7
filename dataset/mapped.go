package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	flatbuffers "github.com/google/flatbuffers/go"
)

// Arrow's Go reader copies every buffer of a batch. What follows finds the buffers of an uncompressed batch where they
// lie in a mapped file, by the format's own tables (format/File.fbs, Message.fbs). It panics where an offset leads out of
// the file; callers recover.

// Slots of the flatbuffer tables (4 + 2 × field number) and values of Arrow's enums.
const (
	footerSchema       = 6
	footerDictionaries = 8
	footerBatches      = 10

	schemaFields   = 6
	schemaMetadata = 8

	fieldType     = 8
	fieldChildren = 14
	fieldMetadata = 16

	typeUnion = 14 // Type.Union

	messageHeaderType = 6
	messageHeader     = 8

	batchLength      = 4
	batchNodes       = 6
	batchBuffers     = 8
	batchCompression = 10

	headerRecordBatch = 3 // MessageHeader.RecordBatch

	arrowMagic = "ARROW1"
	blockSize  = 24 // struct Block {offset: long; metaDataLength: int; bodyLength: long}
	pairSize   = 16 // struct FieldNode {length, null_count: long} and Buffer {offset, length: long}

	footerTail = 4 + len(arrowMagic)
	maxFooter  = 64 << 20
	maxFields  = 10_000
)

// mappedBatch returns the rows and buffers of the i-th record batch of an Arrow file with nodes field nodes, without
// copying. Nulls and compression are errors.
func mappedBatch(data []byte, i, nodes int) (rows int, buffers [][]byte, err error) {
	block, ok := vector(footerOf(data), footerBatches, i, blockSize)
	if !ok {
		return 0, nil, errors.New("no such record batch")
	}
	offset := binary.LittleEndian.Uint64(block)
	metaLen := uint64(binary.LittleEndian.Uint32(block[8:]))
	message := data[offset : offset+metaLen]
	if binary.LittleEndian.Uint32(message) != 0xffffffff {
		return 0, nil, errors.New("a message of the format before Arrow 0.15")
	}
	body := data[offset+metaLen:]
	body = body[:binary.LittleEndian.Uint64(block[16:])]

	header, err := recordBatch(rootTable(message[8:]))
	if err != nil {
		return 0, nil, err
	}
	if o := header.Offset(batchLength); o != 0 {
		rows = int(header.GetInt64(header.Pos + flatbuffers.UOffsetT(o)))
	}
	for n := range nodes {
		node, ok := vector(header, batchNodes, n, pairSize)
		if !ok || binary.LittleEndian.Uint64(node[8:]) != 0 {
			return 0, nil, errors.New("a column is missing or has nulls")
		}
	}
	for n := range 2 * nodes { // each column and each list has validity and values or offsets
		b, ok := vector(header, batchBuffers, n, pairSize)
		if !ok {
			return 0, nil, errors.New("a buffer is missing")
		}
		from, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		buffer := body[from : from+n : from+n]
		if n > 0 && uintptr(unsafe.Pointer(&buffer[0]))%8 != 0 {
			return 0, nil, errors.New("a buffer is not aligned to 8 bytes")
		}
		buffers = append(buffers, buffer)
	}
	return rows, buffers, nil
}

// footerOf finds the footer table: it lies before its length and the magic at the end.
func footerOf(data []byte) flatbuffers.Table {
	end := len(data) - footerTail
	size := int(binary.LittleEndian.Uint32(data[end:]))
	return rootTable(data[end-size : end])
}

// readFooter reads the footer of a file and bounds what it announces before arrow allocates for it: a vector of the schema
// that claims more than the footer holds would end the process for want of memory.
func readFooter(r ipc.ReadAtSeeker) ([]byte, error) {
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	tail := make([]byte, footerTail)
	if _, err := r.ReadAt(tail, end-int64(footerTail)); err != nil || string(tail[4:]) != arrowMagic {
		return nil, errors.New("not an Arrow file")
	}
	size := int64(binary.LittleEndian.Uint32(tail))
	if size > min(maxFooter, end-int64(footerTail)) {
		return nil, fmt.Errorf("a footer of %d bytes in a file of %d", size, end)
	}
	footer := make([]byte, size)
	if _, err := r.ReadAt(footer, end-int64(footerTail)-size); err != nil {
		return nil, err
	}
	t := rootTable(footer)
	for _, slot := range []flatbuffers.VOffsetT{footerDictionaries, footerBatches} {
		if _, err := vectorLen(t, slot, blockSize); err != nil {
			return nil, err
		}
	}
	schema, err := footerSchemaOf(t)
	if err != nil {
		return nil, err
	}
	fields := maxFields
	return footer, checkFields(schema, schemaFields, schemaMetadata, &fields)
}

func footerSchemaOf(footer flatbuffers.Table) (flatbuffers.Table, error) {
	o := flatbuffers.UOffsetT(footer.Offset(footerSchema))
	if o == 0 {
		return flatbuffers.Table{}, errors.New("no schema")
	}
	return flatbuffers.Table{Bytes: footer.Bytes, Pos: footer.Indirect(o + footer.Pos)}, nil
}

// checkFields checks the vectors of fields and of metadata of a schema or a field, and those below. left is how many
// fields there may be in all, so that no cycle of offsets runs for ever.
func checkFields(t flatbuffers.Table, fields, metadata flatbuffers.VOffsetT, left *int) error {
	if _, err := vectorLen(t, metadata, 4); err != nil {
		return err
	}
	n, err := vectorLen(t, fields, 4)
	if err != nil {
		return err
	}
	if *left -= n; *left < 0 {
		return fmt.Errorf("more than %d columns", maxFields)
	}
	for i := range n {
		at := t.Vector(flatbuffers.UOffsetT(t.Offset(fields))) + flatbuffers.UOffsetT(4*i)
		child := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(at)}
		if kind := flatbuffers.UOffsetT(child.Offset(fieldType)); kind != 0 && child.GetByte(child.Pos+kind) == typeUnion {
			return errors.New("union columns are not supported")
		}
		if err := checkFields(child, fieldChildren, fieldMetadata, left); err != nil {
			return err
		}
	}
	return nil
}

// vectorLen is the length of a vector with elements of size bytes; one that leaves its buffer is an error.
func vectorLen(t flatbuffers.Table, slot flatbuffers.VOffsetT, size int64) (int, error) {
	o := flatbuffers.UOffsetT(t.Offset(slot))
	if o == 0 {
		return 0, nil
	}
	n := t.VectorLen(o)
	if n < 0 || int64(n)*size > int64(len(t.Bytes))-int64(t.Vector(o)) {
		return 0, errors.New("a table leads out of the footer")
	}
	return n, nil
}

func rootTable(b []byte) flatbuffers.Table {
	return flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
}

// recordBatch is the header of a message that is an uncompressed record batch.
func recordBatch(message flatbuffers.Table) (t flatbuffers.Table, err error) {
	kind := message.Offset(messageHeaderType)
	if kind == 0 || message.GetByte(message.Pos+flatbuffers.UOffsetT(kind)) != headerRecordBatch {
		return t, errors.New("not a record batch")
	}
	message.Union(&t, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	if t.Offset(batchCompression) != 0 {
		return t, fmt.Errorf("the batch is compressed")
	}
	return t, nil
}

// vector returns the n-th struct of a vector of structs in a slot of a table.
func vector(t flatbuffers.Table, slot flatbuffers.VOffsetT, n, size int) ([]byte, bool) {
	o := flatbuffers.UOffsetT(t.Offset(slot))
	if o == 0 || n >= t.VectorLen(o) {
		return nil, false
	}
	at := int(t.Vector(o)) + n*size
	return t.Bytes[at : at+size], true
}
