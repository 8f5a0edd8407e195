"""What the samples' programs must know of a language: its letters, and how its prompts are spoken.

Lists of sentences write things otherwise than the voice says them, have typing errors, and the
Spanish one leaves most accents out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Signs that the lists repeat in brackets after the words: "dash [-]"; sounds: "[sound of …]".
IN_BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


@dataclass(frozen=True)
class Language:
    """A language's letters and digits, and what its prompts' list of sentences needs.

    Attributes:
        letters: of a word, lower case, as the inside of a regular expression's brackets.
        spoken: strings of the list to what the voice says; taken first, in their order.
        words: words, lower case, to how they are spelled.
        listed: clips' names to sentences that the list lacks or has under another name.
        all_listed: whether the words of every clip are known. If not, clips that are not listed,
            or with a number of several digits, which can be said in many ways, are left out.
    """

    letters: str
    digits: tuple[str, ...]
    spoken: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    all_listed: bool = True

    def plain(self, text: str) -> str:
        """The text's words, in lower case, with one space between them."""
        return " ".join(re.sub(f"[^{self.letters} ]", " ", text.lower()).split())

    def known(self, sentence: str) -> bool:
        """Whether it is known what the voice says in the clip of this sentence."""
        return self.all_listed or bool(sentence and not re.search(r"\d\d", sentence))

    def normalize(self, sentence: str) -> str:
        """Lower-case words, as they are spoken; empty for a sound without words."""
        for written, spoken in self.spoken.items():
            sentence = sentence.replace(written, spoken)
        sentence = IN_BRACKETS.sub(" ", sentence)
        sentence = re.sub(r"\d", lambda digit: f" {self.digits[int(digit[0])]} ", sentence)
        return " ".join(self.words.get(word, word) for word in self.plain(sentence).split())


ENGLISH = Language(
    letters="a-z'",
    digits=tuple("zero one two three four five six seven eight nine".split()),
    spoken={
        'IAX (note: does not say "2")': "i a x",
        "www.asterisk.org": "w w w dot asterisk dot org",
        "H.323": "h three two three",
        "3D": "three d",
        "28.8": "twenty eight point eight",
        "8500": "eight five zero zero",
        "4242": "four two four two",
        "1234": "one two three four",
        "500": "five zero zero",
        "600": "six zero zero",
        "A.M.": "a m",
        "P.M.": "p m",
        "fourtieth": "fortieth",
        "represenatives": "representatives",
        "umute": "unmute",
        "exclaimation": "exclamation",
        "Un-indentified": "unidentified",
        "witheld": "withheld",
        "thru": "through",
        "kilobit": "kilobit",
        "PBX": "p b x",
        "IVR": "i v r",
        "IP": "i p",
        "IAX": "i a x",
        "MGCP": "m g c p",
        "USB": "u s b",
        "#": " pound ",
        "*": " star ",
    },
    words=dict(
        pair.split("=")
        for pair in (
            "allsion=allison deposite=deposit distrobution=distribution dupliction=duplication "
            "facilites=facilities retrvial=retrieval servies=services gigabyes=gigabytes "
            "indefinately=indefinitely vagas=vegas simultanious=simultaneous avaialble=available "
            "oaklahoma=oklahoma pheonix=phoenix annoucement=announcement contol=control "
            "destuct=destruct temporarialy=temporarily representitivie=representative "
            "tuscon=tucson twelveth=twelfth virgina=virginia exremely=extremely"
        ).split()
    ),
)


SPANISH = Language(
    letters="a-záéíóúñü",
    digits=tuple("cero uno dos tres cuatro cinco seis siete ocho nueve".split()),
    spoken={
        "www.asterisk.org": "w w w punto asterisk punto org",
        "[temporales]": "temporales",
        "a.m.": "a m",
        "p.m.": "p m",
        "mgcp": "m g c p",
        "iax": "i a x",
        "IAX": "i a x",
        "PBX": "p b x",
        "IVR": "i v r",
        "voz sobre IP": "voz sobre i p",
        "para aceptar la llamada para aceptar la llamada": "para aceptar la llamada",
        "Cuatro u seis": "Cuatro o seis",
        "paracambiar": "para cambiar",
        "an adelante": "en adelante",
        "mudo mudo": "modo mudo",
        "atravez": "a través",
        "re-enviado": "reenviado",
        "Ya esta en": "Ya está en",
        "Esta usted": "Está usted",
        "Esta a punto": "Está a punto",
        "esta fuera": "está fuera",
        "esta libre": "está libre",
        "Algo esta": "Algo está",
        "Si esta usando": "Si está usando",
        "a que carpeta": "a qué carpeta",
        "En que carpeta": "En qué carpeta",
        "no se quien": "no sé quién",
    },
    words={
        **dict.fromkeys(["ó", "oh"], "o"),
        **{
            spoken.translate(str.maketrans("áéíóúñ", "aeioun")): spoken
            for spoken in (
                "atrás aún ayudarán búsqueda buzón código comenzará comprendí conexión "
                "configuración contraseña contraseñas cortés décimo después dígitos dólar dólares "
                "duodécimo duración escucharás están estén estándar exclamación extensión físico "
                "grabación guiaré información ingresará intentaré introducción inválida inválido "
                "japón líder línea logré maría mañana menú millón mínimos miércoles más navegará "
                "numérico número opción próximo propósito rápidamente reproducción sábado séptimo "
                "también técnica tecleó teléfono telefónico tendrá trigésimo undécimo única unirá "
                "unirán útil vacías válido veintidós veintiséis veintitrés víctor vigésimo último "
                "autenticación dieciséis será"
            ).split()
        },
        "trés": "tres",
        "cient": "cien",
        "contrasenia": "contraseña",
        "defeto": "defecto",
        "demonstracion": "demostración",
        "demostracion": "demostración",
        "entidade": "entidades",
        "ingese": "ingrese",
        "introdusca": "introduzca",
        "mesaje": "mensaje",
        "nimbre": "nombre",
        "numbre": "nombre",
    },
    listed={
        "digits/0": "cero",
        "digits/10": "diez",
        "digits/1F": "una",
        "digits/1M": "un",
        "digits/20-and": "veinti",
        "confbridge-lock-out": "para bloquear o desbloquear la conferencia",
        **{f"silence/{seconds}": "[silence]" for seconds in range(1, 11)},
    },
    all_listed=False,
)

LANGUAGES = {"en": ENGLISH, "es": SPANISH}
