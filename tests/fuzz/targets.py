"""Every reader of files from outside, with what must hold for whatever bytes it gets.

A target takes bytes and returns where the reader refused them with its own error, or read something that is
right. Any other exception, and the end of the process, is a find.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import pickle
import pickletools
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from fuzz.mutations import mutated
from nucpro import formats as store
from nucpro.classifier.splits import read_families
from nucpro.errors import DataError, FastaError, ModelError, NucproError, StoreError, is_plain
from nucpro.export.manifest import Ledger
from nucpro.folder import selection
from nucpro.folder.paths import DataFolder, ExportFolder
from nucpro.formats.fasta import count, inspect, read, stream
from nucpro.formats.pickles import Storage, Tensor, dump, load
from nucpro.formats.records import document
from nucpro.formats.sequences import NUCLEOTIDES, SequenceType
from nucpro.genomes.download import read_choice
from nucpro.genomes.genbank import read_annotations
from nucpro.genomes.reports import read_manifest
from nucpro.genomes.taxonomy import Taxonomy, read_organisms
from nucpro.prediction import work as prediction
from nucpro.prediction.options import OutputFolder
from nucpro.state import history
from nucpro.state.checkpoint import Checkpoint
from nucpro.vectors.outputs import FORMATS, Content, read_content

IDS = ["NC_1.1_0_300_frame1", "b", "ç"]
META = {"a": [1.5, "b", None], "n": -70000, "deep": {"x": [[]]}}


@dataclass(frozen=True)
class Target:
    """A reader: valid files, pieces that mean something in their format, and what must hold for any bytes."""

    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes]
    check: Callable[[bytes, Path], None]

    @property
    def inputs(self) -> st.SearchStrategy[bytes]:
        """Bytes that are nearly a valid file."""
        return st.deferred(lambda: mutated(self.seeds(), self.words))


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pt")
        write(path)
        return path.read_bytes()


def _archive(data: bytes, storage: bytes = bytes(60)) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"data.pkl": data, "data/0": storage, "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def _vectors() -> np.ndarray:
    return np.arange(15, dtype=np.float32).reshape(3, 5)


_FILES = [
    _written(lambda path: store.write_vectors(path, IDS, _vectors(), META, SequenceType.DNA)),
    _written(lambda path: store.write_vectors(path, IDS, _vectors(), None, SequenceType.PROTEIN)),
    _written(lambda path: store.write_merged(path, IDS, _vectors(), META, 1)),
]
_ROW = {"label": "a", "mean_representation": [0.5] * 20}
_LISTS = {"nucleotide": ["a", "b"], "data": [_ROW, _ROW | {"label": "b"}], "meta": META}
_PICKLES = [
    *(pickle.dumps(_LISTS, protocol) for protocol in (2, 3, 4, 5)),
    *(zipfile.ZipFile(io.BytesIO(file)).read("archive/data.pkl") for file in _FILES),
    dump({"proteins": ["a"], "data": [Tensor(Storage("0", "float32", 15), 3, (4,), (3,))]}),
]
_ZIP_WORDS = [
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"archive/",
    b"data/0",
    b"data.pkl",
    b"../",
    b"\0" * 8,
]
_PICKLE_WORDS = [
    *(opcode.code.encode("latin-1") for opcode in pickletools.opcodes),
    b"cos\nsystem\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x0ftQ",
    b"ccollections\nOrderedDict\n)R",
    b"G" + bytes(8),
    b"K\1",
    b"h\0",
    b"\x8c\1a",
]  # fmt: skip


def check_file(data: bytes, folder: Path) -> None:
    """A ``.pt`` file is refused, or gives ids, finite vectors and plain values."""
    path = folder / "a.pt"
    path.write_bytes(data)
    for read_file in (
        partial(store.read_vectors, sequence_type=SequenceType.DNA),
        partial(store.read_vectors, sequence_type=SequenceType.PROTEIN),
        store.read_merged,
    ):
        try:
            found = read_file(path)
        except StoreError as error:
            _require_message(error, path)
            continue
        assert found.vectors.shape[0] == len(found.ids) == len(set(found.ids)) > 0
        assert found.vectors.dtype == np.float32
        assert np.isfinite(found.vectors).all()
        assert all(type(name) is str and is_plain(name) for name in found.ids)
        assert found.meta is None or json.dumps(found.meta) is not None
    for look in (store.read_meta, store.check_directory):
        try:
            look(path)
        except StoreError as error:
            _require_message(error, path)


def check_pickle(data: bytes, folder: Path) -> None:
    """The same for a pickle whose archive and checksums are right."""
    check_file(_archive(data), folder)


def check_opcodes(data: bytes, folder: Path) -> None:
    """Any opcodes give a plain value or a tensor's description."""
    with suppress(StoreError):
        value = load(memoryview(b"\x80\x02" + data + b"."), {"0": 60}, "a.pt")
        assert type(value).__module__ in {"builtins", "nucpro.formats.pickles"}


def _require_message(error: NucproError, path: Path) -> None:
    message = str(error)
    assert message.startswith(f"{path}: "), message
    assert is_plain(message), message
    assert len(message) < 2000, message


def _require_short(error: NucproError, path: Path) -> None:
    """Messages that quote the file are escaped where they are shown."""
    assert str(path) in str(error), str(error)
    assert len(str(error)) < 2000, str(error)


_FASTA = [
    b">NC_1.1_0_300_frame1 text\nACGT\nAC\n>b\r\nACGT\r\n>c\nNNNN",
    ">ü x\nMKV\n\n>b>c\nMK*\n".encode(),
]
_FASTA_WORDS = [
    b">", b"\n>", b"\n", b"\r\n", b"\r", b"\0", b"\t", b" ", b"\x1b[2J",
    b"\xef\xbb\xbf", b"@", b"+\n", b"\xff", b"\xc2\x85", b"\x1f\x8b",
]  # fmt: skip


def check_fasta(data: bytes, folder: Path) -> None:
    """A FASTA file is refused, or gives ids in one word and the letters between the headers."""
    path = folder / "a.fa"
    path.write_bytes(data)
    try:
        records = read(path)
    except FastaError as error:
        _require_message(error, path)
        with suppress(FastaError):
            count(path)
        return
    assert count(path) == len(records) > 0
    assert all(name and is_plain(name) and name.split() == [name] for name in records.ids)
    assert all(b"\n" not in sequence for sequence in records.sequences)
    facts = inspect(path, NUCLEOTIDES, 3)
    assert all(is_plain(problem) for problem in facts.problems)
    if not data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        assert b"".join(records.sequences) == _letters(data)


def _letters(data: bytes) -> bytes:
    """Everything that is in no header, found in another way than the parser's."""
    data = data.removeprefix(codecs.BOM_UTF8)
    data = data.replace(b"\r", b"" if b"\n" in data else b"\n")
    lines = [line for line in data.split(b"\n") if not line.startswith(b">")]
    return b"".join(lines).decode(errors="replace").encode("ascii", "replace").upper()


def check_packed(data: bytes, folder: Path) -> None:
    """The same for bytes that are meant to be packed, and for FASTQ, record by record."""
    path = folder / "a.fa.gz"
    path.write_bytes(data)
    try:
        assert all(is_plain(name) for name in read(path).ids)
    except FastaError as error:
        _require_message(error, path)
    try:
        assert all(
            is_plain(name) and sequence == sequence.upper() for name, sequence in stream(path, fastq=True)
        )
    except FastaError as error:
        _require_message(error, path)


_FASTQ = b"@r1 a\nACGT\nAC\n+r1\nIIII@@\n@r2\nNN\n+\n>>\n"


def _packed() -> list[bytes]:
    packers: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress]
    with suppress(ImportError):
        from backports import zstd

        packers.append(zstd.compress)
    texts = [*_FASTA, _FASTQ]
    return [
        _FASTQ,
        *(pack(text) for pack in packers for text in texts),
        *(2 * pack(_FASTA[0]) for pack in packers),
    ]


_PACKED_WORDS = [
    *_FASTA_WORDS, b"\x1f\x8b\x08", b"BZh9", b"1AY&SY", b"\xfd7zXZ\0", b"YZ", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18",
    b"BC\x02\x00", b"\0\0\0\0\0\0\0\0",
]  # fmt: skip

_GENBANK = [
    b"""LOCUS       NC_1                60 bp    DNA     circular BCT 01-JAN-1970
DEFINITION  made for a test.
ACCESSION   NC_1 NC_2
VERSION     NC_1.3  GI:1234
KEYWORDS    .
SOURCE      somewhere
  ORGANISM  somewhere
            Viruses; others.
REFERENCE   1  (bases 1 to 60)
  AUTHORS   Somebody,A.
  TITLE     Direct Submission
  JOURNAL   Submitted (01-JAN-1970)
COMMENT     nothing.
FEATURES             Location/Qualifiers
     source          1..60
                     /organism="x"
     CDS             join(50..60,1..20)
                     /note="a ""quoted"" word"
                     /codon_start=1
                     /transl_table=11
                     /translation="MAAAAK
                     LLLV"
     CDS             complement(order(<1..5,7.9,>20^21,J1.1:3..4))
                     /pseudo
ORIGIN
        1 acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac acgtacgtac
//
""",
]
_GENBANK_WORDS = [
    b"join(", b"complement(", b"order(", b"one-of(", b"bond(", b")", b",", b"..", b"^", b"<", b">", b"1..2",
    b"99999999999999999999", b"\n                     /", b'"', b"\n     CDS             ", b"\n//\n", b"ORIGIN\n",
    b"CONTIG      join(J1.1:1..60)\n", b"FEATURES             Location/Qualifiers\n", b"LOCUS       ", b"\r\n", b"\0",
    b"\x1b[2J", b"\xff", b"/translation=", b"/transl_table=", b"-1", b"VERSION     ", b"\xef\xbb\xbf", b"\t",
]  # fmt: skip


def check_genbank(data: bytes, folder: Path) -> None:
    """A GenBank file is refused, or gives named records whose counts agree."""
    path = folder / "a.genomic.gbff.gz"
    path.write_bytes(gzip.compress(data, 0))
    try:
        for annotation in read_annotations(path):
            assert annotation.record
            assert is_plain(annotation.record)
            found = sum(map(len, annotation.proteins.values()))
            assert annotation.cds == found + annotation.without_translation
            assert max(annotation.across_origin, annotation.of_unknown_code) <= annotation.cds
    except DataError as error:
        _require_message(error, path)


_RECORDS = [
    b'{"format":1,"started_at":"2026-01-01T00:00:00+00:00","completed_files":["a.fa"],'
    b'"facts":{"vectors:a.pt":{"x":1,"stamp":[1,2,3]},"recipe:protein":{"kind":"protein","made_by":{},"width":6}}}',
    b'{"vectors:a.pt":{"x":1,"stamp":[1,2,3]}}\n{"completed":"b.fa"}\n',
    b'{"format":1,"reason":"seeded","sequences_per_file":3,"viral":[],"hosts":["plant/output_1.fa"]}',
]
_JSON_WORDS = [
    b"{", b"}", b"[", b"]", b":", b",", b"null", b"1e999", b"NaN", b'"facts"', b'"stamp"', b'"\\ud800"',
    b"\n", b"-0", b"9" * 5000,
]  # fmt: skip


def check_records(data: bytes, folder: Path) -> None:
    """A damaged checkpoint or journal is ignored where it is damaged; a damaged selection is refused."""
    data_folder = DataFolder(folder)
    for path in (data_folder.checkpoint, data_folder.journal, data_folder.selection):
        path.write_bytes(data)
    with Checkpoint(data_folder) as checkpoint:
        assert checkpoint.fact("vectors", folder / "a.pt") is None
        assert all(type(key) is str for key in checkpoint.completed)
        for sequence_type in SequenceType:
            checkpoint.recipe_of(sequence_type)
    with Checkpoint(data_folder) as again:
        assert again.completed == checkpoint.completed
    with suppress(DataError):
        selection.load(data_folder)


_SHA = b"0" * 64
_SEALED = [
    *_RECORDS,
    b'{"release":231,"seed":42,"counts":{"plant":0},"files":[{"name":"viral.1.1.genomic.fna.gz","group":"viral",'
    b'"md5":"00000000000000000000000000000000"}],"verified":{"viral.1.1.genomic.fna.gz":[1,2,3]}}',
    b'{"length":300,"genetic_code":"auto","inputs":{"fasta":"%b"},"outputs":{"protein":null},"counts":{"records":1},'
    b'"examples":{"records":["a"]},"rules":1}' % _SHA,
    b'{"format":1,"to":"npz","columns":["id"],"rows":1,"width":2,"classes":{"host":1},"categories":{"plant":1},'
    b'"shards":[{"shard":"a.npz","source":"b.pt","source_sha256":"%b","rows":1,"width":2,"label":0,'
    b'"category":"plant","bytes":9,"sha256":"%b"}]}' % (_SHA, _SHA),
    b'{"format":1,"rules":1,"input":{"file":"a","sha256":"%b","records":1,"bases":2,"chunks":3},"classifier":'
    b'{"sha256":"%b","sides":["dna"]},"encoders":{"dna":{"key":"%b","made_by":{"id":"x"}}},"length":300,'
    b'"chunks_per_unit":5,"counts":{"records":1},"outputs":{"frames.tsv":"%b"}}' % (_SHA, _SHA, _SHA, _SHA),
    b'{"pieces":[["a",300,[0]]],"starts":[0],"ends":[300],"chunks":[0,0],"frames":[0,5],"residues":[99,98],'
    b'"scores":[0.25,1.0],"unknown_frames":0,"cut_frames":0}',
    b'{"id":"owner/name","revision":"abc","files":{"config.json":"%b","vocab.txt":null}}' % _SHA,
]


def check_sealed(data: bytes, folder: Path) -> None:
    """Whatever a record says under a checksum that fits: it is taken, or refused by name in one line."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(plain, dict):
        return
    from nucpro.models.weights import locate

    data_folder, output, exported = DataFolder(folder), OutputFolder(folder), ExportFolder(folder)
    readers: dict[Path, Callable[[], object]] = {
        data_folder.selection: lambda: selection.load(data_folder),
        folder / ".download.json": lambda: read_choice(folder),
        folder / "a.identified.json": lambda: read_manifest(folder / "a.identified.json"),
        exported.manifest: lambda: Ledger(exported, "npz"),
        output.record: lambda: prediction.read_record(output.record),
        output.unit(1): lambda: list(prediction.Work(output).units(1)),
        folder / "nucpro_source.json": lambda: locate(str(folder)),
    }
    output.work.mkdir(exist_ok=True)
    for path, reader in readers.items():
        try:
            path.write_bytes(document(plain))
            reader()
        except UnicodeEncodeError:
            return
        except NucproError as error:
            message = str(error)
            assert str(folder) in message
            assert is_plain(message) or "\n  - " in message, message
            assert len(message) < 2000, message
        finally:
            path.unlink(missing_ok=True)


_TABLES = [
    b"record\ttaxon_id\torganism\tlineage\nNC_1.1\t10239\tsome virus\tViruses; Riboviria\nNC_2.1\t\t\t\n",
    b'# record\tfamily\nNC_1.1\tF1\r\n"NC_2.1"\t"a ""b"""\tmore\n',
    "\ufeffNC_1.1\tF1\n".encode("utf-16"),
]
_TABLE_WORDS = [
    b"\t",
    b"\n",
    b"\r",
    b'"',
    b"; ",
    b"#",
    b"-1",
    b"9" * 30,
    b"\xc2\xb2",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
]


def check_tables(data: bytes, folder: Path) -> None:
    """A table of organisms or families is refused, or gives text by record."""
    path = folder / "a.tsv"
    path.write_bytes(data)
    for reader in (read_organisms, read_families):
        try:
            assert all(type(record) is str for record in reader(path))
        except DataError as error:
            _require_short(error, path)


_NODES = b"1\t|\t1\t|\tno rank\t|\n10239\t|\t1\t|\tsuperkingdom\t|\n7\t|\t10239\t|\tspecies\t|\n"
_MERGED = b"8\t|\t7\t|\n"


def _dump(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{name}.dmp")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


_DUMPS = [_NODES, _dump(nodes=_NODES, merged=_MERGED), gzip.compress(_dump(nodes=_NODES), mtime=0)]
_DUMP_WORDS = [
    b"\t|\t",
    b"\t|\n",
    b"\n",
    b"1",
    b"0",
    b"-1",
    b"9" * 9,
    b"9" * 10,
    b"\xd9\xa3",
    b"genus",
    b"ustar",
    b"nodes.dmp",
    b"\0" * 64,
]


def check_taxonomy(data: bytes, folder: Path) -> None:
    """A dump of NCBI's taxonomy is refused, or gives ancestors, as an archive and as a folder."""
    inner = folder / "dump"
    inner.mkdir(exist_ok=True)
    for path, file in ((inner, inner / "nodes.dmp"), (folder / "taxdump.tar.gz", folder / "taxdump.tar.gz")):
        file.write_bytes(data)
        try:
            taxonomy = Taxonomy(path)
            assert taxonomy.ancestor(7, "species") in (7, None)
            assert taxonomy.names([7]) == {7: "taxon 7"} or path.is_file()
        except DataError as error:
            _require_short(error, path)


_CONFIGS = [
    b'{"model_type":"esm","vocab_size":33,"hidden_size":320,"num_hidden_layers":6,"num_attention_heads":20,'
    b'"intermediate_size":1280,"position_embedding_type":"rotary","token_dropout":true,"layer_norm_eps":1e-05,'
    b'"mask_token_id":32,"pad_token_id":1,"emb_layer_norm_before":false,"hidden_act":"gelu","torch_dtype":"float32"}',
    b'{"model_type":"bert","architectures":["BertForMaskedLM"],"vocab_size":4096,"hidden_size":768,"alibi_starting_size":512,'
    b'"num_hidden_layers":12,"num_attention_heads":12,"intermediate_size":3072,"type_vocab_size":2,"layer_norm_eps":1e-12}',
]


def check_config(data: bytes, folder: Path) -> None:
    """A model's configuration is refused by name, or describes an encoder of either sequence type."""
    from nucpro.models.architectures import architecture_of, sequence_type_of
    from nucpro.models.weights import locate

    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_bytes(data)
    readers: tuple[Callable[[], object], ...] = (
        lambda: sequence_type_of(locate(str(folder))),
        *(
            partial(lambda sequence_type: architecture_of(locate(str(folder)), sequence_type), sequence_type)
            for sequence_type in SequenceType
        ),
    )
    for reader in readers:
        try:
            reader()
        except NucproError as error:
            _require_short(error, Path(folder.name))


_HISTORY = [
    b'{"time":"2026-01-01T00:00:00.000+00:00","event":"started","command":"extract"}\n'
    b'{"time":"2026-01-01T00:00:01.000+00:00","event":"planned","files":3}\n'
    b'{"time":"2026-01-01T00:00:02.000+00:00","event":"file","file":"a","seconds":1.5,"records":2,"letters":3,"tokens":4}\n'
    b'{"time":"2026-01-01T00:00:03.000+00:00","event":"stage","name":"merge","seconds":1}\n'
    b'{"time":"2026-01-01T00:00:04.000+00:00","event":"ended","how":"finished","message":""}\n'
]


def check_history(data: bytes, folder: Path) -> None:
    """Damaged lines of a history are ignored; each line gets a checksum that fits, so that its values are looked at."""
    data_folder = DataFolder(folder)
    for content in (data, b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in data.split(b"\n"))):
        data_folder.history.write_bytes(content)
        for run in history.read(data_folder):
            assert all(type(one.file) is str for one in run.files)


def _vector_files() -> list[bytes]:
    found = []
    for suffix, form in FORMATS.items():
        content = Content(IDS, _vectors(), META, SequenceType.PROTEIN)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"a{suffix}")
            form.write(path, content)
            found.append(path.read_bytes())
    return found


def check_vectors(data: bytes, folder: Path) -> None:
    """A file of vectors of any suffix is refused, or gives as many rows as ids."""
    for suffix in FORMATS:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        try:
            content = read_content(path)
            assert len(content.ids) == len(content.vectors)
        except StoreError as error:
            _require_short(error, path)


def weight_files() -> list[bytes]:
    """A safetensors and a ``.bin`` file."""
    import torch
    from safetensors.torch import save

    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return [save(tensors), buffer.getvalue()]


def check_weights(data: bytes, folder: Path) -> None:
    """A weights file is refused, or gives tensors by name."""
    import torch

    from nucpro.models.tensors import WeightTensors

    for name in ("model.safetensors", "pytorch_model.bin"):
        path = folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            tensors = WeightTensors((path,))
            assert all(isinstance(tensors[name], torch.Tensor) for name in tensors)
        except ModelError as error:
            _require_message(error, path)


def _opcodes() -> list[bytes]:
    return [data[2:-1] for data in _PICKLES]


TARGETS = {
    "files": Target(lambda: _FILES, _ZIP_WORDS, check_file),
    "pickles": Target(lambda: _PICKLES, _PICKLE_WORDS, check_pickle),
    "opcodes": Target(_opcodes, _PICKLE_WORDS, check_opcodes),
    "fasta": Target(lambda: _FASTA, _FASTA_WORDS, check_fasta),
    "packed": Target(_packed, _PACKED_WORDS, check_packed),
    "genbank": Target(lambda: _GENBANK, _GENBANK_WORDS, check_genbank),
    "sealed records": Target(lambda: _SEALED, _JSON_WORDS, check_sealed),
    "records": Target(lambda: _RECORDS, _JSON_WORDS, check_records),
    "history": Target(lambda: _HISTORY, _JSON_WORDS, check_history),
    "tables": Target(lambda: _TABLES, _TABLE_WORDS, check_tables),
    "taxonomy": Target(lambda: _DUMPS, _DUMP_WORDS, check_taxonomy),
    "configurations": Target(lambda: _CONFIGS, _JSON_WORDS, check_config),
    "vectors": Target(_vector_files, [*_ZIP_WORDS, *_JSON_WORDS], check_vectors),
    "weights": Target(weight_files, [*_ZIP_WORDS, *_PICKLE_WORDS, *_JSON_WORDS], check_weights),
}
