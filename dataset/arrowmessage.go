package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"
)

// Slots of the message tables (format/Message.fbs) beside those in mapped.go.
const (
	messageBodyLength = 10
	footerVersion     = 4

	batchVariadic = 12

	arrowMarker = 0xffffffff // before the length of a message

	headerSchema     = 1 // MessageHeader.Schema
	headerDictionary = 2 // MessageHeader.DictionaryBatch
	dictionaryData   = 6 // DictionaryBatch.data

	maxArrowBatch = 1 << 30 // bytes that a batch may expand to
)

// messages is an ipc.MessageReader that bounds what messages announce before arrow allocates for it. It panics where an offset
// leads out of a message; input.guard recovers.
type messages struct {
	mem  *budget                                         // for what a message expands to
	next func() (meta []byte, body io.Reader, err error) // of the next message; io.EOF after the last
}

// Retain implements ipc.MessageReader; nothing is counted.
func (m *messages) Retain() {}

// Release implements ipc.MessageReader.
func (m *messages) Release() {}

// Message implements ipc.MessageReader.
func (m *messages) Message() (*ipc.Message, error) {
	meta, body, err := m.next()
	if err != nil {
		return nil, err
	}
	message := rootTable(meta)
	size := int64(0)
	if o := message.Offset(messageBodyLength); o != 0 {
		size = message.GetInt64(message.Pos + flatbuffers.UOffsetT(o))
	}
	if err := checkMessage(message); err != nil {
		return nil, err
	}
	data, err := readN(body, size, maxPage, "a batch")
	if err != nil {
		return nil, err
	}
	m.mem.left = maxArrowBatch
	return ipc.NewMessage(memory.NewBufferBytes(meta), memory.NewBufferBytes(data)), nil
}

// streamed gives the messages of a stream.
func streamed(r io.Reader) func() ([]byte, io.Reader, error) {
	return func() ([]byte, io.Reader, error) {
		n, err := prefix(r)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if err != nil {
			return nil, nil, err
		}
		meta, err := readN(r, int64(n), maxFooter, "a message")
		return meta, r, err
	}
}

// prefix reads the length of the next message. Streams before Arrow 0.15 have no marker before it.
func prefix(r io.Reader) (uint32, error) {
	var word [4]byte
	for {
		if _, err := io.ReadFull(r, word[:]); err != nil {
			return 0, err
		}
		if n := binary.LittleEndian.Uint32(word[:]); n != arrowMarker {
			return n, nil
		}
	}
}

// filed gives the messages of a file: its schema, then its dictionaries, then its batches, where its footer says.
func filed(r ipc.ReadAtSeeker) (func() ([]byte, io.Reader, error), error) {
	footer, err := readFooter(r)
	if err != nil {
		return nil, err
	}
	table := rootTable(footer)
	schema, err := schemaMessage(table)
	if err != nil {
		return nil, err
	}
	slot, next := flatbuffers.VOffsetT(0), 0
	return func() ([]byte, io.Reader, error) {
		if slot == 0 {
			slot = footerDictionaries
			return schema, r, nil
		}
		block, ok := vector(table, slot, next, blockSize)
		if !ok && slot == footerDictionaries {
			slot, next = footerBatches, 0
			block, ok = vector(table, slot, next, blockSize)
		}
		if !ok {
			return nil, nil, io.EOF
		}
		next++
		return messageAt(r, int64(binary.LittleEndian.Uint64(block)), int64(binary.LittleEndian.Uint32(block[8:])))
	}, nil
}

// messageAt reads the metadata of a message that lies in a file, size bytes of it with its prefix.
func messageAt(r io.ReaderAt, at, size int64) (meta []byte, body io.Reader, err error) {
	if at < 0 {
		return nil, nil, errors.New("a message before the file")
	}
	section := io.NewSectionReader(r, at, 1<<62)
	if meta, err = readN(section, size, maxFooter, "a message"); err != nil {
		return nil, nil, err
	}
	skip := 4
	if binary.LittleEndian.Uint32(meta) == arrowMarker {
		skip = 8
	}
	return meta[skip:], section, nil
}

// schemaMessage makes a message of the schema in a footer: a table of the message's type before the footer's own bytes.
// Some writers leave the schema at the start of the file unreadable.
func schemaMessage(footer flatbuffers.Table) ([]byte, error) {
	schema, err := footerSchemaOf(footer)
	if err != nil {
		return nil, err
	}
	const vtable, table, header, size = 4, 16, 8, 28
	b := make([]byte, size, size+len(footer.Bytes))
	binary.LittleEndian.PutUint32(b, table)
	for i, offset := range []uint16{10, size - table, 4, 6, header} { // own length, the table's, version, header type, header
		binary.LittleEndian.PutUint16(b[vtable+2*i:], offset)
	}
	binary.LittleEndian.PutUint32(b[table:], table-vtable)
	if o := flatbuffers.UOffsetT(footer.Offset(footerVersion)); o != 0 {
		binary.LittleEndian.PutUint16(b[table+4:], uint16(footer.GetInt16(footer.Pos+o)))
	}
	b[table+6] = headerSchema
	binary.LittleEndian.PutUint32(b[table+header:], size+uint32(schema.Pos)-(table+header))
	return append(b, footer.Bytes...), nil
}

// readN reads n bytes; memory grows only with what is there.
func readN(r io.Reader, n, most int64, what string) ([]byte, error) {
	if n < 0 || n > most {
		return nil, fmt.Errorf("%s of %d bytes, the limit is %d", what, n, most)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b.Bytes(), nil
}

// checkMessage checks the vectors whose lengths arrow believes.
func checkMessage(message flatbuffers.Table) error {
	var header flatbuffers.Table
	kind := message.Offset(messageHeaderType)
	if kind == 0 || message.Offset(messageHeader) == 0 {
		return errors.New("a message without a header")
	}
	message.Union(&header, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	switch message.GetByte(message.Pos + flatbuffers.UOffsetT(kind)) {
	case headerSchema:
		fields := maxFields
		return checkFields(header, schemaFields, schemaMetadata, &fields)
	case headerDictionary:
		o := flatbuffers.UOffsetT(header.Offset(dictionaryData))
		if o == 0 {
			return errors.New("a dictionary without data")
		}
		header = flatbuffers.Table{Bytes: header.Bytes, Pos: header.Indirect(o + header.Pos)}
	}
	return checkBatch(header)
}

func checkBatch(batch flatbuffers.Table) error {
	if _, err := vectorLen(batch, batchNodes, pairSize); err != nil {
		return err
	}
	buffers, err := vectorLen(batch, batchBuffers, pairSize)
	if err != nil {
		return err
	}
	views, err := vectorLen(batch, batchVariadic, 8)
	if err != nil {
		return err
	}
	for i := range views {
		at := batch.Vector(flatbuffers.UOffsetT(batch.Offset(batchVariadic))) + flatbuffers.UOffsetT(8*i)
		if n := batch.GetInt64(at); n < 0 || n > int64(buffers) {
			return fmt.Errorf("a column with %d buffers of %d", n, buffers)
		}
	}
	return nil
}

// budget refuses to allocate more than so many bytes for a message: a compressed batch of a few bytes can ask for any number.
type budget struct {
	memory.Allocator
	left int
}

// Allocate panics when the budget is spent.
func (b *budget) Allocate(n int) []byte {
	b.spend(n)
	return b.Allocator.Allocate(n)
}

// Reallocate panics when the budget is spent.
func (b *budget) Reallocate(n int, old []byte) []byte {
	b.spend(n)
	return b.Allocator.Reallocate(n, old)
}

func (b *budget) spend(n int) {
	if b.left -= n; b.left < 0 {
		panic(fmt.Errorf("a batch of more than %d bytes", maxArrowBatch)) //nolint:forbidigo // the interface has no error; input.guard recovers it
	}
}
