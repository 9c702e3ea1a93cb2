"""The table of `larrey doctor`; pure rules."""

from __future__ import annotations

from larrey_protocol.checkup import Check, Outcome, Skip, Text
from larrey_protocol.checkup_rules import remote, slow_flush
from larrey_server.doctor.probe import Identity, Kept, Machine, Port, State

__all__ = ["CHECKS"]

_WARN_DAYS = 14.0
_AUTHORITY_DAYS = 180.0  # every site must get the next one before
_LEAST_FREE = 5 << 30  # bytes: each round spools an update a site
_SLOW_S = 0.1  # of one flush; every reply of a site waits for some
_NONE = Skip(Text("no coordinator ever ran here", "aucun coordinateur n'a encore tourné ici"))


def _ended(facts: Identity) -> Outcome:
    days = -facts.days_left
    return Text(f"{days:.1f} days ago", f"depuis {days:.1f} jours") if days > 0 else None


def _ends_soon(facts: Identity) -> Outcome:
    days = facts.days_left
    if not 0 <= days < _WARN_DAYS:
        return None
    return Text(f"in {days:.1f} days", f"dans {days:.1f} jours")


def _foreign(facts: Identity) -> Outcome:
    name = "identity.certificate"
    return None if facts.is_issued else Text(name, name)


def _mismatch(facts: Identity) -> Outcome:
    return None if facts.is_pair else Text("identity.key", "identity.key")


def _authority(facts: Identity) -> Outcome:
    days = facts.authority_days_left
    if days >= _AUTHORITY_DAYS:
        return None
    return Text(f"{days:.0f} days are left", f"il reste {days:.0f} jours")


def _open_keys(facts: Identity) -> Outcome:
    names = ", ".join(facts.open_keys)
    return Text(names, names) if names else None


def _signing(facts: Identity) -> Outcome:
    name = "identity.signing_key"
    return None if facts.is_signing_key_whole else Text(name, name)


def _operators(facts: Identity) -> Outcome:
    names = ", ".join(facts.operators_ended)
    return Text(names, names) if names else None


def _loopback(facts: Port) -> Outcome:
    return Text(facts.address, facts.address) if facts.is_loopback else None


def _silent(facts: Port) -> Outcome:
    return None if facts.is_open else Text(facts.address, facts.address)


def _other(facts: Port) -> Outcome:
    if not facts.is_open:
        return Skip(Text("nothing answers there", "rien n'y répond"))
    return None if facts.is_ours else Text(facts.address, facts.address)


def _read_only(facts: State) -> Outcome:
    return Text(facts.path, facts.path) if facts.is_readonly else None


def _not_writable(facts: State) -> Outcome:
    if facts.is_readonly or not facts.trouble:
        return None
    return Text(f"{facts.path}: {facts.trouble}", f"{facts.path} : {facts.trouble}")


def _nearly_full(facts: State) -> Outcome:
    free = facts.free_bytes >> 20
    if facts.free_bytes >= _LEAST_FREE:
        return None
    return Text(f"{free} MiB are free", f"{free} Mio libres")


def _remote(facts: State) -> Outcome:
    return remote(facts.kind)


def _slow(facts: State) -> Outcome:
    return slow_flush(facts.flush_s, _SLOW_S)


def _open_state(facts: State) -> Outcome:
    names = ", ".join(facts.open_places)
    return Text(names, names) if names else None


def _not_held(facts: State) -> Outcome:
    return None if facts.is_held else Text(facts.path, facts.path)


def _kept(facts: Kept) -> Outcome:
    if facts.code is None:
        return _NONE
    return Text(facts.code, facts.code) if facts.code else None


def _clock(facts: Machine) -> Outcome:
    if facts.is_clock_kept is None:
        return Skip(Text("the kernel does not say", "le noyau ne le dit pas"))
    return None if facts.is_clock_kept else Text("so says the kernel", "selon le noyau")


def _engine(facts: Machine) -> Outcome:
    if not facts.engine_wanted:
        return Skip(Text("this release names none", "cette version n'en nomme aucune"))
    if facts.engine == facts.engine_wanted:
        return None
    found, wanted = facts.engine or "-", facts.engine_wanted
    return Text(f"flwr {found}, made for {wanted}", f"flwr {found}, prévu : {wanted}")


CHECKS: tuple[Check, ...] = (
    Check(
        "server-certificate-ended", "identity", "failed",
        Text("the server's certificate has not ended", "le certificat du serveur n'a pas expiré"),
        Text("Start the coordinator with the authority's key: it issues the next one.",
             "Démarrez le coordinateur avec la clé de l'autorité : il émet le suivant."),
        "a server's certificate issued 400 days ago for 365",
        _ended,
    ),
    Check(
        "server-certificate-ends-soon", "identity", "warning",
        Text(f"the server's certificate lasts {_WARN_DAYS:.0f} days more",
             f"le certificat du serveur vaut encore {_WARN_DAYS:.0f} jours"),
        Text("A running coordinator that has the authority's key renews it; else issue it there.",
             "Un coordinateur en marche qui a la clé de l'autorité le renouvelle ; sinon,"
             " émettez-le là où elle est."),
        "a server's certificate with 5 days left",
        _ends_soon,
    ),
    Check(
        "server-certificate-foreign", "identity", "failed",
        Text("the authority issued the server's certificate",
             "l'autorité a émis le certificat du serveur"),
        Text("Put the authority and the certificate of the same time in place.",
             "Mettez en place l'autorité et le certificat de la même époque."),
        "a server's certificate of another authority",
        _foreign,
    ),
    Check(
        "server-key-mismatch", "identity", "failed",
        Text("the server's key belongs to its certificate",
             "la clé du serveur va avec son certificat"),
        Text("Restore the key that was made with this certificate.",
             "Restaurez la clé créée avec ce certificat."),
        "the key of another certificate",
        _mismatch,
    ),
    Check(
        "authority-ends-soon", "identity", "warning",
        Text(f"the authority lasts more than {_AUTHORITY_DAYS:.0f} days",
             f"il reste plus de {_AUTHORITY_DAYS:.0f} jours à l'autorité"),
        Text("Plan the next authority: every site must put it in its site.toml before.",
             "Préparez la prochaine autorité : chaque site doit l'avoir dans site.toml avant."),
        "an authority with 100 days left",
        _authority,
    ),
    Check(
        "server-key-open", "identity", "failed",
        Text("private keys are closed to others", "les clés privées sont fermées aux autres"),
        Text("chmod 600 the file; if others could read it, make a new key.",
             "chmod 600 sur le fichier ; si d'autres ont pu le lire, créez une clé neuve."),
        "a key file of mode 0644",
        _open_keys,
    ),
    Check(
        "server-signing-key-damaged", "identity", "failed",
        Text("the signing key is whole", "la clé de signature est intacte"),
        Text("Restore it from the backup.", "Restaurez-la depuis la sauvegarde."),
        "a signing key file of other bytes",
        _signing,
    ),
    Check(
        "operator-certificate-ended", "identity", "warning",
        Text("no operator's certificate has ended", "aucun certificat d'opérateur n'a expiré"),
        Text("Run: larrey operator reissue NAME --out operator.crt",
             "Lancez : larrey operator reissue NOM --out operator.crt"),
        "an operator's certificate issued 400 days ago for 365",
        _operators,
    ),
    Check(
        "listens-on-loopback", "port", "warning",
        Text("other machines can reach the port", "d'autres machines peuvent joindre le port"),
        Text("Set listen.address to 0.0.0.0 and the port, unless a relay here passes it on.",
             "Mettez 0.0.0.0 et le port dans listen.address, sauf si un relais local le transmet."),
        "a listen.address of this machine alone",
        _loopback,
    ),
    Check(
        "port-silent", "port", "failed",
        Text("the port that hospitals reach answers", "le port que joignent les hôpitaux répond"),
        Text("Start it: larrey serve.", "Démarrez-le : larrey serve."),
        "no coordinator is started",
        _silent,
    ),
    Check(
        "port-of-another", "port", "failed",
        Text("what answers there shows a certificate of the authority",
             "ce qui y répond présente un certificat de l'autorité"),
        Text("Another program has the port, or something in front opens TLS: pass it through.",
             "Un autre programme occupe le port, ou un frontal ouvre TLS : laissez-le passer."),
        "a TLS server of another authority at the port",
        _other,
    ),
    Check(
        "coordinator-state-read-only", "state", "failed",
        Text("the state's volume takes writes", "le volume de l'état accepte les écritures"),
        Text("Mount it for writing; the coordinator goes on by itself then.",
             "Montez-le en écriture ; le coordinateur reprend ensuite seul."),
        "a read-only mount over the state folder, in a mount namespace",
        _read_only,
    ),
    Check(
        "coordinator-state-not-writable", "state", "failed",
        Text("the state folder takes writes", "le dossier d'état accepte les écritures"),
        Text("Free space there, and let the coordinator's account write it.",
             "Libérez de l'espace et donnez au compte du coordinateur le droit d'y écrire."),
        "a full tmpfs as the state folder, in a mount namespace",
        _not_writable,
    ),
    Check(
        "coordinator-state-nearly-full", "state", "warning",
        Text("5 GiB are free for updates and models", "5 Gio sont libres pour les mises à jour"),
        Text("Free some space, or use a larger volume.",
             "Libérez de l'espace, ou prenez un volume plus grand."),
        "a tmpfs of 8 MiB as the state folder, in a mount namespace",
        _nearly_full,
    ),
    Check(
        "coordinator-state-remote", "state", "failed",
        Text("the state lies on a disk of this machine",
             "l'état est sur un disque de cette machine"),
        Text("Move coordinator.state to a local disk: locks of a share do not hold.",
             "Déplacez coordinator.state sur un disque local : un partage ne garantit pas les"
             " verrous."),
        "the kind of file system, given to the rule: a share needs a server",
        _remote,
    ),
    Check(
        "coordinator-state-slow", "state", "warning",
        Text(f"a flush takes less than {_SLOW_S * 1000:.0f} ms",
             f"une écriture durable prend moins de {_SLOW_S * 1000:.0f} ms"),
        Text("Use a local disk with power-loss protection.",
             "Prenez un disque local protégé contre les coupures."),
        "a flush time, given to the rule: a slow disk needs hardware",
        _slow,
    ),
    Check(
        "coordinator-state-open", "state", "failed",
        Text("state and databases are closed to others",
             "l'état et les bases sont fermés aux autres"),
        Text("chmod 700 the folder and 600 the databases.",
             "chmod 700 sur le dossier et 600 sur les bases."),
        "a database of mode 0644",
        _open_state,
    ),
    Check(
        "journal-not-held", "state", "warning",
        Text("a coordinator holds the journal, so no second one can write",
             "un coordinateur tient le journal : aucun autre ne peut écrire"),
        Text("Start it: larrey serve. If one runs, it uses another state folder than this file's.",
             "Démarrez-le : larrey serve. S'il tourne, il utilise un autre dossier d'état."),
        "a state folder that no coordinator has open",
        _not_held,
    ),
    Check(
        "journal-broken", "journal", "failed",
        Text("the journal is whole and meets every signed head",
             "le journal est intègre et conforme à chaque tête signée"),
        Text("Change nothing; run larrey audit verify --state and restore the newest backup.",
             "Ne changez rien ; lancez larrey audit verify --state et restaurez la sauvegarde la"
             " plus récente."),
        "a record taken out of the database of a coordinator that ran",
        _kept,
    ),
    Check(
        "spool-damaged", "spool", "failed",
        Text("the spooled models and updates are whole",
             "modèles et mises à jour en attente sont intègres"),
        Text("Check the disk. What is damaged is made or asked for again after a restart.",
             "Contrôlez le disque. Ce qui est abîmé est refait ou redemandé après un redémarrage."),
        "a byte changed in a spooled file",
        _kept,
    ),
    Check(
        "coordinator-clock-not-kept", "machine", "warning",
        Text("something keeps this machine's clock", "l'horloge de cette machine est synchronisée"),
        Text("Run chrony or systemd-timesyncd on the host.",
             "Lancez chrony ou systemd-timesyncd sur l'hôte."),
        "the kernel's answer, given to the rule: setting a clock needs the host",
        _clock,
    ),
    Check(
        "coordinator-engine-differs", "machine", "failed",
        Text("the installed flwr is the one this release needs",
             "le flwr installé est celui de cette version"),
        Text("Install this release again with its lock file.",
             "Réinstallez cette version avec son fichier de verrouillage."),
        "another version of flwr first on the path of packages",
        _engine,
    ),
)  # fmt: skip
