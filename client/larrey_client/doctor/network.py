"""The way to each coordinator: name, proxy, port, and who signed what it shows."""

from __future__ import annotations

from collections.abc import Callable

from larrey_client.doctor.ways import Facts, Way
from larrey_protocol.checkup import Check, Outcome, Skip, Text, joined

__all__ = ["CHECKS"]

_SLOW_S = 1.0  # of a handshake, which takes three turns; a heartbeat may take 5 s


def _each(says: Callable[[Way], Text | None]) -> Callable[[Facts], Outcome]:
    def rule(facts: Facts) -> Outcome:
        return joined(text for way in facts.ways if (text := says(way)) is not None)

    return rule


def _unnamed(way: Way) -> Text | None:
    host = way.address.rpartition(":")[0]
    return None if way.is_named else Text(f"{way.name}: {host}", f"{way.name} : {host}")


def _unreachable(way: Way) -> Text | None:
    if not way.is_named or way.trouble != "unreachable":
        return None
    return Text(f"{way.name}: {way.address}", f"{way.name} : {way.address}")


def _inspected(way: Way) -> Text | None:
    if not way.is_machine_trusted:
        return None
    return Text(
        f"{way.name}: TLS inspection? {way.address} shows a certificate of '{way.issuer}', which"
        " this machine's own authorities vouch for",
        f"{way.name} : inspection TLS ? {way.address} présente un certificat de « {way.issuer} »,"
        " reconnu par les autorités installées sur cette machine",
    )


def _untrusted(way: Way) -> Text | None:
    if way.trouble != "untrusted" or way.is_machine_trusted:
        return None
    issuer = way.issuer or "?"
    return Text(
        f"{way.name}: {way.address} shows a certificate of '{issuer}'; coordinator.authority is"
        f" '{way.authority}'",
        f"{way.name} : {way.address} présente un certificat de « {issuer} » ;"
        f" coordinator.authority est « {way.authority} »",
    )


def _closed(way: Way) -> Text | None:
    if way.trouble != "closed":
        return None
    return Text(f"{way.name}: {way.address}", f"{way.name} : {way.address}")


def _slow(way: Way) -> Text | None:
    if way.took_s <= _SLOW_S:
        return None
    return Text(
        f"{way.name}: the handshake took {way.took_s:.1f} s",
        f"{way.name} : l'établissement a pris {way.took_s:.1f} s",
    )


def _proxy_away(facts: Facts) -> Outcome:
    if not facts.proxy:
        return Skip(Text("no proxy is set", "aucun proxy n'est défini"))
    return None if facts.is_proxy_there else Text(facts.proxy, facts.proxy)


def _unread(facts: Facts) -> Outcome:
    names = ", ".join(facts.unread)
    return Text(names, names) if names else None


def _differing(facts: Facts) -> Outcome:
    names = ", ".join(facts.differing)
    return Text(names, names) if names else None


def _loopback(facts: Facts) -> Outcome:
    if not facts.proxy:
        return Skip(Text("no proxy is set", "aucun proxy n'est défini"))
    names = "no_proxy"
    return None if facts.is_loopback_exempt else Text(names, names)


CHECKS: tuple[Check, ...] = (
    Check(
        "coordinator-name-unknown", "network", "failed",
        Text("the coordinator's name resolves", "le nom du coordinateur est résolu"),
        Text(
            "Check coordinator.address, and that this machine's DNS knows the name.",
            "Vérifiez coordinator.address et que le DNS de cette machine connaît ce nom.",
        ),
        "a host name that no DNS knows",
        _each(_unnamed),
    ),
    Check(
        "coordinator-unreachable", "network", "failed",
        Text("the coordinator's port answers", "le port du coordinateur répond"),
        Text(
            "Open one outbound TCP connection to it in the firewall; check the address.",
            "Ouvrez une connexion TCP sortante vers lui dans le pare-feu ; vérifiez l'adresse.",
        ),
        "a port at which nobody listens",
        _each(_unreachable),
    ),
    Check(
        "tls-inspected", "network", "failed",
        Text("nobody opens the TLS connection", "personne n'ouvre la connexion TLS"),
        Text(
            "TLS inspection is not supported: exempt this address from it at the proxy.",
            "L'inspection TLS n'est pas prise en charge : exemptez cette adresse sur le proxy.",
        ),
        "a TLS server that shows a certificate re-signed by an authority of the machine's store",
        _each(_inspected),
    ),
    Check(
        "coordinator-untrusted", "network", "failed",
        Text(
            "the coordinator is signed by the consortium's authority",
            "le coordinateur est signé par l'autorité du consortium",
        ),
        Text(
            "If the consortium confirms by phone that it changed its authority, put the new one in"
            " coordinator.authority and join again; else somebody is in between.",
            "Si le consortium confirme par téléphone un changement d'autorité, mettez la nouvelle"
            " dans coordinator.authority et adhérez de nouveau ; sinon, un tiers s'interpose.",
        ),
        "a coordinator of another authority",
        _each(_untrusted),
    ),
    Check(
        "coordinator-closed", "network", "failed",
        Text(
            "the coordinator accepts this site's certificate",
            "le coordinateur accepte le certificat de ce site",
        ),
        Text(
            "Ask the consortium whether this site's membership stands, then join again.",
            "Demandez au consortium si l'adhésion de ce site est valable, puis adhérez de nouveau.",
        ),
        "a site certificate of an authority that the coordinator does not know",
        _each(_closed),
    ),
    Check(
        "coordinator-slow", "network", "warning",
        Text(
            f"a handshake takes less than {_SLOW_S:.0f} s",
            f"l'établissement TLS prend moins de {_SLOW_S:.0f} s",
        ),
        Text(
            "Ask who runs the proxy or the line; rounds will take longer.",
            "Voyez avec le responsable du proxy ou de la ligne ; les tours seront plus longs.",
        ),
        "a relay in front of the coordinator that holds every byte back",
        _each(_slow),
    ),
    Check(
        "proxy-unreachable", "network", "failed",
        Text("the proxy answers", "le proxy répond"),
        Text(
            "Correct https_proxy, or unset it where the way out is direct.",
            "Corrigez https_proxy, ou supprimez-la si la sortie est directe.",
        ),
        "a proxy variable that names a port at which nobody listens",
        _proxy_away,
    ),
    Check(
        "proxy-unread", "network", "warning",
        Text(
            "proxy variables are set in lower case, too",
            "les variables de proxy existent aussi en minuscules",
        ),
        Text(
            "Set each also in lower case: gRPC reads only that one.",
            "Définissez-les aussi en minuscules : gRPC ne lit que celles-là.",
        ),
        "HTTPS_PROXY set and https_proxy not",
        _unread,
    ),
    Check(
        "proxy-differs", "network", "warning",
        Text(
            "both spellings of a proxy variable agree",
            "les deux graphies d'une variable de proxy concordent",
        ),
        Text("Give both spellings one value.", "Donnez la même valeur aux deux graphies."),
        "HTTPS_PROXY and https_proxy with different values",
        _differing,
    ),
    Check(
        "proxy-takes-loopback", "network", "warning",
        Text("loopback is exempt from the proxy", "la boucle locale échappe au proxy"),
        Text(
            "Set no_proxy=localhost,127.0.0.1 beside the proxy, in both spellings.",
            "Définissez no_proxy=localhost,127.0.0.1 à côté du proxy, dans les deux graphies.",
        ),
        "https_proxy set without no_proxy",
        _loopback,
    ),
)  # fmt: skip
