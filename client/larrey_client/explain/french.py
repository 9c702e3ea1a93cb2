"""The phrases of `larrey_client.explain.study` in French; `english` has the same keys."""

from __future__ import annotations

__all__ = ["FRENCH"]

FRENCH = {
    # libellés
    "digest": "empreinte",
    "proposed-by": "proposée par",
    "state": "état",
    "signatures": "signatures",
    "purpose": "Finalité",
    "question": "Question",
    "permit": "Autorisation",
    "controllers": "Responsables",
    "ethics": "Évaluée par",
    "who": "Qui",
    "variables": "Variables",
    "outcome": "Issue",
    "model": "Modèle",
    "rounds": "Tours",
    "privacy": "Protection",
    "cost": "Coût",
    "leaves": "Ce qui sort",
    "opposition": "Opposition",
    "retention": "Conservation",
    "until": "Échéance",
    "next": "Ensuite",
    "warning": "ATTENTION",
    "amends": "Modifie",
    "changes": "Changements",
    # finalités du règlement (UE) 2025/327, article 53
    "public-interest": "l'intérêt public en matière de santé",
    "policy-making": "l'élaboration de politiques et la réglementation",
    "statistics": "la statistique publique",
    "education": "l'enseignement en santé",
    "scientific-research": "la recherche scientifique",
    "improving-care": "l'amélioration des soins",
    # phrases
    "title": "{title}  ({name} version {version})",
    "by-consortium": "la clé du consortium {key}",
    "by-person": "{person}, clé {key}",
    "waiting": "en attente d'une décision de cet établissement",
    "approved": "approuvée",
    "outdated": "périmée : à relire et à signer de nouveau ; elle était approuvée",
    "refused": "refusée",
    "revoked": "révoquée",
    "ended": "terminée",
    "by": " par {names}",
    "for-dataset": " pour le jeu de données {dataset}",
    "code": ", code {code}",
    "signed-of": "{count} sur {total}",
    "signed-missing": "{count} sur {total} (manque : {roles})",
    "signed-outdated": " ; l'approbation portait sur une autre version de l'autorisation ou sur"
    " d'autres établissements",
    "signed-carried": " ; reprise de la version précédente",
    "permit-line": "{reference} version {version}, {state}, par {authority} ; base légale {basis} ;"
    " du {start} au {end}",
    "permit-none": "{reference}, inconnue ici",
    "hosting": " ; coordonnateur hébergé par {hosting}",
    "ethics-line": "protection des données : {dpia} ; éthique : {ethics}",
    "site": "{name} ({patients} ou plus, {fingerprint})",
    "site-unknown": "{name} ({patients} ou plus, ABSENT DE LA LISTE DU CONSORTIUM)",
    "categories": "{name} ({count} catégories)",
    "range": "{name} (de {low:g} à {high:g}{unit})",
    "outcome-class": "{name} (une classe parmi : {classes})",
    "outcome-time": "{event}, et {time} jusque-là ou jusqu'aux dernières nouvelles ({count}"
    " intervalles, jusqu'à {end:g}{unit})",
    "image": "une image par ligne ({height} x {width}, {colour})",
    "colour": "couleur",
    "grey": "niveaux de gris",
    "model-line": "{name}{hidden}, {parameters} paramètres",
    "hidden": ", couches cachées {layers}",
    "layers": ", couches {layers}",
    "rounds-line": "{rounds}{spare}, pas d'apprentissage dans chacun : {steps}, combinés par"
    " {strategy}{app}",
    "spare": " et {spare} de réserve",
    "algorithm": "algorithme",
    "objective-plain": "apprentissage simple sur ce site",
    "objective-fedprox": "l'apprentissage sur ce site est tenu près du modèle commun",
    "objective-scaffold": "l'apprentissage sur ce site est corrigé par ce qu'ont dit les mises à"
    " jour précédentes, toutes publiées ; ce site garde sa part, qui ne sort jamais",
    "objective-feddyn": "l'apprentissage sur ce site est décalé par ce qu'ont dit ses mises à jour"
    " précédentes ; il garde ce décalage, qui ne sort jamais",
    "objective-mr-mtl": "l'apprentissage reprend le modèle propre à ce site, tenu près de la"
    " moyenne des modèles de tous les sites ; ce modèle propre ne sort jamais",
    "aggregator-mean": "les mises à jour sont combinées par leur moyenne pondérée",
    "aggregator-median": "les mises à jour sont combinées par la valeur médiane de chaque nombre :"
    " quelques sites aberrants changent peu",
    "aggregator-trimmed-mean": "les mises à jour sont combinées par la moyenne de chaque nombre"
    " sans ses valeurs les plus grandes et les plus petites",
    "aggregator-krum": "seule la mise à jour la plus proche des autres compte dans un tour",
    "aggregator-multi-krum": "seules les mises à jour les plus proches entre elles comptent dans"
    " un tour",
    "aggregator-geometric-median": "les mises à jour sont combinées par le point le plus proche de"
    " toutes : quelques sites aberrants changent peu",
    "aggregator-centered-clipping": "les mises à jour éloignées des autres sont rapprochées avant"
    " la moyenne",
    "aggregator-norm-bounding": "les mises à jour plus grandes qu'une borne sont réduites avant la"
    " moyenne",
    "optimizer-fedavg": "le coordinateur ajoute le résultat au modèle",
    "optimizer-fedavgm": "le coordinateur l'ajoute avec l'élan des tours précédents",
    "optimizer-fedadagrad": "le coordinateur adapte son pas à chaque nombre (Adagrad)",
    "optimizer-fedadam": "le coordinateur adapte son pas à chaque nombre (Adam)",
    "optimizer-fedyogi": "le coordinateur adapte son pas à chaque nombre (Yogi)",
    "optimizer-fednova": "le coordinateur le ramène au nombre de pas faits",
    "optimizer-scaffold": "le coordinateur l'ajoute, et envoie avec le modèle la moyenne de toutes"
    " les corrections",
    "optimizer-feddyn": "le coordinateur l'ajoute, corrigé par la somme de tous les décalages",
    "optimizer-mr-mtl": "le coordinateur l'ajoute : le modèle est la moyenne des modèles de tous"
    " les sites",
    "app": ", par l'application Flower standard « {app} »",
    "no-privacy": "AUCUNE confidentialité différentielle : rien ne borne ce que le modèle révèle"
    " d'une personne",
    "epsilon": "epsilon {epsilon:.3g} pour delta {delta:g} par {unit} dans cet établissement,"
    " voisins par ajout ou retrait, par PLD, sur tous les tours et tours de réserve ;"
    " multiplicateur de bruit {noise:g}",
    "value-of": "une valeur de",
    "budget": "epsilon {epsilon:g} pour delta {delta:g}",
    "cost-unknown": "{dataset} : aucun epsilon ne le décrit ; le budget ({budget}) n'en dit rien",
    "cost-line": "{dataset} : {share:.1%} du budget ({budget} pour tous les travaux, à jamais) ;"
    " {free:.1%} reste libre{fits}",
    "does-not-fit": " ; le budget ne suffit PAS",
    "leaves-line": "par tour, une mise à jour du modèle de {bytes} octets ({tensors}"
    " tenseurs{stays}{noised}{rounded}), sa taille et sa norme vérifiées, et un reçu signé ;"
    " {metrics}",
    "noised": ", écrêtée et bruitée",
    "stays": ", des zéros pour {names}, appris ici seulement et jamais envoyés",
    "rounded": ", puis arrondie en {encoding}",
    "no-metrics": "aucune ligne, aucun effectif, aucun texte",
    "metrics-one": "et le nombre exact {names}, calculé par ses étapes {calls}, avec un reçu ;"
    " aucune ligne, aucun texte",
    "metrics-many": "et les nombres exacts {names}, calculés par ses étapes {calls}, avec un reçu ;"
    " aucune ligne, aucun texte",
    "and": " et ",
    "opposition-permit": "les personnes opposées avant la décision d'autorisation sont exclues",
    "opposition-round": "les personnes opposées avant un tour en sont exclues",
    "opposition-none": "les oppositions ne s'appliquent PAS : {exception}",
    "retention-line": "modèles et points de reprise chez le coordonnateur jusqu'au {day} ; les"
    " groupes de moins de {least} patients ne sont pas montrés",
    "until-line": "le dernier tour, après au plus {time} de tours ; les tours de réserve non"
    " utilisés sont rendus",
    "next-line": "larrey-site study approve {name} --key CLÉ   ou   refuse",
    "amends-line": "la version {version} ({digest})",
    "change": "{place} : {before} -> {after}",
    "change-none": "rien",
    "change-sign": "ces changements demandent les signatures de cet établissement",
    "change-free": "ces changements ne demandent pas de nouvelle signature",
    "full": "le reste est comme dans la version {version} ; tout lire : --full",
    # avertissements
    "warn-no-privacy": "cette étude n'a AUCUNE confidentialité différentielle ; qui obtient le"
    " modèle peut découvrir qui a participé, et aucun budget ne le borne",
    "warn-unbounded-app": "une application Flower standard apprend ; aucun epsilon ne décrit ce"
    " qu'elle fait",
    "warn-metrics": "{names} : nombres exacts sur les patients d'ici ; aucun epsilon ne les couvre",
    "warn-recorded": "le registre notera pour toujours un travail « unbounded » sur le jeu de"
    " données ; chaque reçu et certificat ultérieur le dira",
    "warn-permit-none": "l'autorisation est inconnue ici ; rien ne peut être approuvé",
    "warn-permit-state": "l'état de l'autorisation est {state}",
    "warn-countersign": "le délégué à la protection des données n'a pas contresigné la dernière"
    " version de l'autorisation",
    "warn-roster": "un établissement de l'étude n'est pas sur la liste du consortium",
    "warn-altered": "un document conservé a été altéré ; rien ne s'exécute : {what}",
    "warn-budget": "le budget de {dataset} ne suffit pas à tous les tours",
    "warn-opposition": "les patients opposés ne sont PAS exclus",
}
